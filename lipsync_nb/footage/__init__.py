"""Avatars from footage: any video or pictures become a folder with a face box for each frame."""
