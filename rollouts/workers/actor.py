"""What runs in a worker's process: one engine behind a Ray actor, which reports its heartbeat while it works."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch
from ray._private import ray_constants

from configs.errors import UserError
from configs.rl import SamplingConfig
from rollouts.engines.table import EngineSpec
from rollouts.request_queue import RequestQueue
from rollouts.types import Completion, Request
from rollouts.weight_checksums import LoadedWeights

_PRIVATE = "starting a private Ray on this machine, which ends with this command (RAY_ADDRESS joins a cluster)"


class WorkerError(UserError):
    """Workers cannot start, or cannot do their work; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a worker's process is, and the file that it writes its stacks to when it gets SIGUSR1."""

    pid: int
    node: str
    stacks: Path


@ray.remote(concurrency_groups={"watch": 1, "feed": 1})  # pyright: ignore[reportCallIssue]
class RolloutActor:
    """One engine in one process. `heartbeat` and `stacks` return while the engine works.

    Completions are generated in a call (`generate`), or beside such calls in an endless stream (`serve`, `submit`).
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.threads = spec.threads
        self.engine = spec.build()
        self.queue = RequestQueue()
        path = Path(tempfile.gettempdir()) / f"thinkvl-stacks-{os.getpid()}.txt"
        self.file = path.open("w", encoding="utf-8")
        faulthandler.register(signal.SIGUSR1, file=self.file, all_threads=True)
        self.address = Address(pid=os.getpid(), node=ray.get_runtime_context().get_node_id(), stacks=path)

    def hello(self) -> Address:
        """Return once the engine is built."""
        return self.address

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

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> LoadedWeights:
        """Load new weights. Returns the version now served and the checksums of the model's tensors."""
        self.engine.load_weights(weights, version=version)
        return LoadedWeights(
            version=self.engine.version,
            checksums=self.engine.weight_checksums(),
            padding_stats=dict(self.engine.take_padding_stats()),
        )

    def weight_checksums(self) -> dict[str, int]:
        """The checksum of every tensor that the engine serves."""
        return self.engine.weight_checksums()

    @ray.method(concurrency_group="watch")
    def heartbeat(self) -> int:
        """A number that grows while the engine works."""
        return self.engine.heartbeat

    @ray.method(concurrency_group="watch")
    def stacks(self) -> str:
        """The Python stack of every thread."""
        frames = sys._current_frames()
        return "\n".join(f"thread {key}:\n{''.join(traceback.format_stack(f))}" for key, f in frames.items())


def start_ray(workers: int, *, say: Callable[[str], None] = lambda line: None) -> bool:
    """Join the cluster that RAY_ADDRESS names (as a submitted job does), or start a private one on this machine.

    Without RAY_ADDRESS, a Ray that already runs here is not joined, and an address file that a killed one left behind
    is not read; `RAY_ADDRESS=auto` joins it. A private one listens on the loopback interface alone. `say` gets a line
    on which of the two is done, before the wait for a cluster, and one on what was found. Returns True if Ray was not
    up yet, so that the caller shuts it down. Raises WorkerError where Ray cannot start.
    """
    if ray.is_initialized():
        return False
    joins = bool(os.environ.get("RAY_ADDRESS"))
    say(f"joining the Ray cluster at {os.environ['RAY_ADDRESS']}, since RAY_ADDRESS is set" if joins else _PRIVATE)
    private = {"address": "local", "num_cpus": max(workers + 1, os.cpu_count() or 1), "include_dashboard": False}
    try:
        handler = signal.getsignal(signal.SIGTERM)
        with _in_code_folder(), nullcontext() if joins else _on_loopback():
            ray.init(log_to_driver=False, configure_logging=False, **({} if joins else private))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own in place, which ends without cleaning up
    except ConnectionError:
        raise  # reported as a wrong RAY_ADDRESS
    except Exception as error:  # ports, memory, sockets, versions: Ray's start-up errors share no type
        text = " ".join(str(error).split())[:400]
        raise WorkerError(
            f"Ray cannot start {'in the cluster of RAY_ADDRESS' if joins else 'on this machine'} "
            f"({type(error).__name__}: {text}). Check the free memory, the space in /dev/shm and in Ray's temporary "
            "folder (RAY_TMPDIR, a short path), then run the same command again"
        ) from error
    say(f"Ray at {ray.get_runtime_context().gcs_address}: {_resources()}")
    return True


def _resources() -> str:
    """Example: `2 nodes, 16 CPUs, 1 GPUs`."""
    found = ray.cluster_resources()
    return f"{len(ray.nodes())} nodes, {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs"


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Within the block Ray takes 127.0.0.1 for this machine's address, so all its servers listen there alone.

    Ray does so on macOS and Windows; elsewhere it listens on every interface, some of it without a token. It has no
    option for it, and replaces a 127.0.0.1 that `ray.init` is given.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"  # here, and in the processes that Ray starts
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        os.environ.pop(name)
        os.environ.update({} if before[1] is None else {name: before[1]})


@contextmanager
def _in_code_folder() -> Iterator[None]:
    """Within the block the working folder is the one that holds our packages.

    Ray puts the driver's working folder first on the workers' import path: a user's `rewards.py` there would shadow
    our package.
    """
    before = Path.cwd()
    os.chdir(Path(__file__).resolve().parents[2])
    try:
        yield
    finally:
        os.chdir(before)
