"""What renders write in the background."""

import threading

WRITERS = ("features", "template")


def wait() -> None:
    """Until what is written in the background is there."""
    for thread in threading.enumerate():
        if thread.name in WRITERS:
            thread.join()
