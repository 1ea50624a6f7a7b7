"""A recorded person: the files of its frames, its face boxes, and the template in RAM or mapped."""
