"""What runs in a worker's process: one engine behind a Ray actor, which reports its heartbeat while it works."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch

from configs.errors import UserError
from configs.rl import SamplingConfig
from rollouts.engines.engine_spec import EngineSpec
from rollouts.request_queue import RequestQueue
from rollouts.resource_use import EngineUse, ProcessUse, process_use
from rollouts.shared_memory import SharedMemory, can_map
from rollouts.types import Completion, Request
from rollouts.weight_checksums import LoadedWeights
from rollouts.weight_stream import Bucket, SentTensor, Shapes


class WorkerError(UserError):
    """Workers cannot start, or cannot do their work; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a worker's process is, and what it writes its stacks to when it gets SIGUSR1; Linux shows it in /proc."""

    pid: int
    node: str
    stacks: Path
    shares: bool  # it can map the memory that the driver shares


@ray.remote(concurrency_groups={"watch": 1, "feed": 1})  # pyright: ignore[reportCallIssue]
class RolloutActor:
    """One engine in one process. `heartbeat` and `stacks` return while the engine works.

    Completions are generated in a call (`generate`), or beside such calls in an endless stream (`serve`, `submit`).
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.threads = spec.threads
        self.engine = spec.build()
        self.queue = RequestQueue()
        self.file = tempfile.TemporaryFile("w")  # noqa: SIM115  nameless: no link to plant, and no kill leaves it
        faulthandler.register(signal.SIGUSR1, file=self.file, all_threads=True)
        self.stacks_file = Path(f"/proc/{os.getpid()}/fd/{self.file.fileno()}")

    def hello(self, probe: SharedMemory | None) -> Address:
        """Return once the engine is built. `probe` is memory that the driver shares with its node."""
        node = ray.get_runtime_context().get_node_id()
        return Address(pid=os.getpid(), node=node, stacks=self.stacks_file, shares=can_map(probe))

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Completions of each request, in order."""
        torch.set_num_threads(self.threads)  # a setting of the thread, and actors work in a thread of their own
        return self.engine.generate(requests, sampling)

    @ray.method(concurrency_group="feed", num_returns="streaming")
    def serve(self, sampling: SamplingConfig) -> Iterator[tuple[int, list[Completion]]]:
        """(number, completions) of each submitted request, as they finish, until `end`."""
        torch.set_num_threads(self.threads)
        yield from self.engine.stream(self.queue, sampling)

    @ray.method(concurrency_group="watch")
    def submit(self, requests: Sequence[Request]) -> None:
        """Give more requests to `serve`; they are numbered in the order of submission, from 0."""
        self.queue.put(requests)

    @ray.method(concurrency_group="watch")
    def cancel(self, numbers: Sequence[int]) -> None:
        """End these requests with the tokens that they have."""
        self.queue.cancel(numbers)

    @ray.method(concurrency_group="watch")
    def end(self, count: int) -> None:
        """Cancel all `count` requests and end `serve`; a later call of `serve` starts a new stream."""
        queue, self.queue = self.queue, RequestQueue()
        queue.cancel(range(count))
        queue.close()

    def start_load(self, shapes: Shapes) -> None:
        """Begin to load new weights: no step is made until all are there. Raises ValueError if they do not fit."""
        self.engine.start_load(shapes)

    def load_bucket(self, tensors: tuple[SentTensor, ...], data: Sequence[np.ndarray] | SharedMemory) -> dict[str, int]:
        """Load some of the weights, read where they are stored. Returns their checksums as held now."""
        torch.set_num_threads(self.threads)
        return self.engine.load_bucket(Bucket(tensors=tensors, data=data))

    def finish_load(self, version: int) -> LoadedWeights:
        """Serve the new weights. Returns the version now served."""
        self.engine.finish_load(version)
        return LoadedWeights(version=self.engine.version, padding_stats=dict(self.engine.take_padding_stats()))

    def sleep(self) -> None:
        """Free the engine's memory for the learner."""
        self.engine.sleep()

    def wake(self) -> None:
        """Take the memory back; weights follow by `load_weights`."""
        self.engine.wake()

    def weight_checksums(self) -> dict[str, int]:
        """The checksum of every tensor that the engine serves."""
        return self.engine.weight_checksums()

    @ray.method(concurrency_group="watch")
    def heartbeat(self) -> int:
        """A number that grows while the engine works."""
        return self.engine.heartbeat

    @ray.method(concurrency_group="watch")
    def take_use(self) -> tuple[EngineUse, ProcessUse]:
        """What the engine did since the last call, and the memory of this process."""
        return self.engine.take_use(), process_use("cuda" if torch.cuda.is_available() else "cpu")

    @ray.method(concurrency_group="watch")
    def stacks(self) -> str:
        """The Python stack of every thread."""
        frames = sys._current_frames()
        return "\n".join(f"thread {key}:\n{''.join(traceback.format_stack(f))}" for key, f in frames.items())
