"""Processes that draw pictures and prepare sounds."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """So many new processes, each of which computes on one core.

    They are started afresh, not forked: a process that uses a GPU cannot be.
    """
    return ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,))
