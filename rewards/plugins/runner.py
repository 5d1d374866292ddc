"""Calls plug-ins: in worker processes of their own class, or, on request, in threads of this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from configs.rewards import RewardConfig
from rewards.plugins.interface import Outcome, Plugin, PluginError, call_plugin, failed
from rewards.plugins.loading import load_plugin
from rewards.plugins.worker import outcome_from_json, task_to_json
from rewards.sandbox.pool import Flow, WorkerDied, WorkerPool, WorkerTimeout
from rewards.sandbox.threads import Threads
from rewards.sandbox.worker_process import WorkerClass
from rewards.types import Task, VerdictKind

Deliver = Callable[[int, Outcome], None]

_FILE_BYTES = 64 << 20  # caches and logs, but no full disk
_OPEN_FILES = 256
_START_SECONDS = 300.0  # heavy libraries on a slow disk
_THREADS = 32  # of an in-process plug-in
_ASYNC_GRACE = 1.0  # seconds for an async plug-in to end by itself before its process is killed


class IsolatedPlugin:
    """A plug-in in worker processes of its own, which start when it is first called."""

    def __init__(self, spec: str, config: RewardConfig, *, base: Path | None, known: Iterable[str]) -> None:
        unset = [name for name in config.env if name not in os.environ]
        if unset:
            raise PluginError(
                f"reward {spec!r}: its `env` names {', '.join(unset)}, which is not set; export it, or leave it out"
            )
        self._spec, self._seconds = spec, config.seconds
        folder = (base or Path.cwd()).resolve()
        self.pool = WorkerPool(
            WorkerClass(
                module="rewards.plugins.worker",
                options={"spec": spec, "base": str(folder), "imports": config.imports, "known": list(known)},
                memory_bytes=config.memory_mb << 20,
                file_bytes=_FILE_BYTES,
                open_files=_OPEN_FILES,
                environment=config.env,
                folder=str(folder),
            ),
            workers=config.workers,
            seconds=config.seconds,
            start_seconds=_START_SECONDS,
            wall_factor=1.0,  # what it waits for is most likely a service
            interrupts=False,  # it may have side effects
        )
        self._kind: dict[str, bool] | None = None
        self._lock = threading.Lock()

    def load(self) -> dict[str, bool]:
        """Load it in a worker, once; returns whether it is `grouped` and `is_async`. Raises PluginError."""
        with self._lock:
            if self._kind is None:
                try:
                    self._kind = self.pool.call({}, seconds=_START_SECONDS)
                except (WorkerDied, WorkerTimeout) as error:
                    text = str(error).removeprefix("PluginError: ")
                    told = text if text.startswith("reward ") else f"reward {self._spec!r}: its worker process: {text}"
                    raise PluginError(told) from error
            return self._kind

    def start(self, responses: Sequence[str], task: Task, flow: Flow, deliver: Deliver) -> None:
        """Call it for `responses`; `deliver` gets the place and the outcome of each, in another thread."""
        kind = self.load()
        together = kind["grouped"] or kind["is_async"]
        parts = [range(len(responses))] if together else [range(i, i + 1) for i in range(len(responses))]
        fields = task_to_json(task)
        for places in parts:
            request = {"responses": [responses[i] for i in places], "task": fields, "seconds": self._seconds}
            limit = self._seconds + _ASYNC_GRACE * kind["is_async"]
            future = self.pool.submit(request, seconds=limit, flow=flow)
            future.add_done_callback(lambda done, places=places: _deliver(done, places, deliver))

    def close(self) -> None:
        """End its processes."""
        self.pool.close()


class LocalPlugin:
    """A plug-in in threads of this process: nothing limits it, so it can stop or end the run."""

    def __init__(self, spec: str, config: RewardConfig, *, base: Path | None, known: Iterable[str]) -> None:
        self._spec, self._seconds, self._base, self._known = spec, config.seconds, base, tuple(known)
        self._plugin: Plugin | None = None
        self._threads = Threads(_THREADS)

    def load(self) -> dict[str, bool]:
        """Import it; returns whether it is `grouped` and `is_async`. Raises PluginError."""
        if self._plugin is None:
            self._plugin = load_plugin(self._spec, base=self._base, known=self._known)
        return {"grouped": self._plugin.grouped, "is_async": self._plugin.is_async}

    def start(self, responses: Sequence[str], task: Task, flow: Flow, deliver: Deliver) -> None:
        """Call it for `responses` in a thread; `deliver` gets the place and the outcome of each."""
        self.load()
        texts = list(responses)
        self._threads.submit(lambda: self._call(texts, task, deliver))

    def close(self) -> None:
        """Let the threads end, without waiting for what a plug-in still does."""
        self._threads.close()

    def _call(self, responses: list[str], task: Task, deliver: Deliver) -> None:
        assert self._plugin is not None
        try:
            outcomes = call_plugin(self._plugin, responses, task, seconds=self._seconds)
        except Exception as error:  # such as no memory for a thread or a loop: nobody may be left waiting
            outcomes = [failed(VerdictKind.CRASH, f"{type(error).__name__}: {error}")] * len(responses)
        for place, outcome in enumerate(outcomes):
            deliver(place, outcome)


AnyPlugin = IsolatedPlugin | LocalPlugin


def make_plugin(spec: str, config: RewardConfig, *, base: Path | None, known: Iterable[str]) -> AnyPlugin:
    """The plug-in `spec`, run as `config` says. Nothing is loaded yet."""
    return (LocalPlugin if config.in_process else IsolatedPlugin)(spec, config, base=base, known=known)


def _deliver(done: Future[dict[str, Any]], places: range, deliver: Deliver) -> None:
    error = done.exception()
    if error is None:
        try:
            outcomes = [outcome_from_json(fields) for fields in done.result()["answer"]]
            if len(outcomes) != len(places):
                raise ValueError(f"{len(outcomes)} outcomes for {len(places)} responses")
        except (ValueError, TypeError, KeyError, AttributeError) as garbled:
            error = WorkerDied(f"the worker's answer is garbled: {garbled}")
    if error is not None:
        kind = VerdictKind.TIMEOUT if isinstance(error, WorkerTimeout) else VerdictKind.CRASH
        outcomes = [failed(kind, str(error))] * len(places)
    for place, outcome in zip(places, outcomes, strict=True):
        deliver(place, outcome)
