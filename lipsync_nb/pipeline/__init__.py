"""The stages of a render in the order of the data, and their wiring."""
