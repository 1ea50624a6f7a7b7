"""The last layers of a network, compiled to run row by row."""
