"""Which Ray a run uses: a private one on this machine, or the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray
from ray._private import ray_constants

from configs.text import counted
from rollouts.workers.actor import WorkerError
from rollouts.workers.raylet_watch import watch_raylet

FREE_MILLISECONDS = 10  # until the object store frees what is no longer used (1,000 in Ray): a weight sync fills again
# what the last one has used, and new pages of shared memory cost five times as much as a copy
_PRIVATE = "starting a private Ray on this machine, which ends with this command (RAY_ADDRESS joins a cluster)"


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
    private = {
        "address": "local",
        "num_cpus": max(workers + 1, os.cpu_count() or 1),
        "include_dashboard": False,
        "_system_config": {"free_objects_period_milliseconds": FREE_MILLISECONDS},
    }
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # a token that is used is no news
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
    if not joins:
        watch_raylet()
    say(f"Ray at {ray.get_runtime_context().gcs_address}: {_resources()}")
    return True


def _resources() -> str:
    """Example: `2 nodes, 16 CPUs, 1 GPU`."""
    found = ray.cluster_resources()
    return (
        f"{counted(len(ray.nodes()), 'node')}, {counted(found.get('CPU', 0), 'CPU')}, "
        f"{counted(found.get('GPU', 0), 'GPU')}"
    )


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
