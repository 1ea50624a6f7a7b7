from .unet328 import untrained_generator as untrained_generator
