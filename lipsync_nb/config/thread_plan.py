"""How the processor's cores are shared among the libraries that start threads."""

from __future__ import annotations

from dataclasses import dataclass

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.system.limits import available_cores


@dataclass(frozen=True)
class ThreadPlan:
    """Threads of each library while a render runs; 0 leaves the choice to the library.

    OpenCV has no entry: it gives a picture of a face box's size to one thread by itself.

    Attributes:
        network: ONNX Runtime's threads within one operator, for each stream.
        streams: batches that run through the generator at the same time.
        spinning: whether its threads wait in a busy loop, which is faster as long as nothing
            else needs the cores.
        encoder: x264's threads.
    """

    network: int
    streams: int
    spinning: bool
    encoder: int

    @property
    def cores(self) -> int:
        """Threads of all streams together."""
        return self.network * self.streams


def plan_threads(
    config: RenderConfig, cores: int | None = None, on_gpu: bool = False
) -> ThreadPlan:
    """Threads for a configuration.

    ``auto`` gives the network, by far the largest part of the work, all cores, and x264 the
    quarter of them that keeps up with it; while stages overlap, none waits in a busy loop, and
    every core has a batch of its own: cores that share one wait for each other after every
    operator. ``each`` leaves every library as it is by itself. Where the network runs on a GPU,
    x264 gets all cores.

    Example:
        >>> plan_threads(RenderConfig(), cores=8)
        ThreadPlan(network=1, streams=8, spinning=False, encoder=2)
        >>> plan_threads(RenderConfig(streams=2), cores=8)
        ThreadPlan(network=4, streams=2, spinning=False, encoder=2)
    """
    if config.threads == "each":
        return ThreadPlan(config.num_threads, config.streams or 1, True, 0)
    cores = cores or available_cores()
    threads = config.num_threads or cores
    streams = config.streams or (threads if config.overlap else 1)
    each = max(1, threads // streams)
    encoder = cores if on_gpu else max(1, cores // 4)
    return ThreadPlan(each, streams, not config.overlap, encoder)
