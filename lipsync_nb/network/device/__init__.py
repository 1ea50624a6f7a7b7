"""Networks whose inputs and outputs stay on a device: template in, finished patches out."""
