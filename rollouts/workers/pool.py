"""The pool of rollout workers: generates, replaces workers that fail, and finds the tasks that make them fail."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from configs.rl import SamplingConfig
from configs.text import shorten
from rollouts.resource_use import PoolUse
from rollouts.types import Completion, Request
from rollouts.weight_stream import WeightStream, stream_of
from rollouts.workers.actor import EngineSpec, WorkerError
from rollouts.workers.error_texts import exit_of, one_line
from rollouts.workers.health import Watch, diagnose
from rollouts.workers.quarantine import Failure, Quarantine, TooManyCulprits, find_culprits
from rollouts.workers.worker_group import WorkerGroup, WorkerSeats

TRIES = 3  # of a whole share of requests, each on a fresh worker, before one of its tasks is suspected
POLL_SECONDS = 0.5
_COLOUR = re.compile(r"\x1b\[\d+m")  # in the tracebacks that Ray passes on

Groups = list[list[Completion]]  # the completions of each request


@dataclass(frozen=True, slots=True)
class _Job:
    """A share that a worker generates."""

    share: int
    future: ray.ObjectRef[Any]
    watch: Watch


class RolloutPool:
    """`workers` actors that serve one policy version. What shares a worker's batch depends on `workers` alone.

    A worker that dies, raises, or makes no progress for `deadline` seconds is replaced by a fresh one with the same
    weights, which gets the same requests and gives the same completions. Where no node has room for it, another worker
    gets its requests, after its own and apart from them. A task that fails alone goes to `quarantine`, and its requests
    have no completions from then on. Diagnoses are written to `folder`.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        workers: int,
        deadline: float = 600.0,
        quarantine: Quarantine | None = None,
        folder: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        seats: WorkerSeats | None = None,
    ) -> None:
        self.version = 0
        self.quarantine = quarantine if quarantine is not None else Quarantine()
        self.failures: Counter[str] = Counter()  # by kind, since the pool was made
        self._began = time.monotonic()  # of the current step
        self.deadline, self._folder, self._say = deadline, folder, say
        self.lock = threading.Condition(threading.RLock())  # who holds it may use and replace the workers
        self.worker_group = WorkerGroup(
            spec,
            workers=workers,
            on_death=lambda slot, text: self._report(slot, Failure("death", text)),
            seats=seats,
        )

    def publish(self, weights: WeightStream | Mapping[str, Any], *, version: int) -> None:
        """Give every worker the weights of `version`, bucket by bucket, as `rollouts.weight_stream` explains.

        Every worker returns the version that it serves and the checksums of its tensors; one that differs gets all
        weights once more. Raises StaleWorker with the names of the tensors if it differs again, ValueError for
        weights that do not fit the model.
        """
        stream = weights if isinstance(weights, WeightStream) else stream_of(weights)
        with self.lock:
            for slot in self.worker_group.bring_back():
                self._say(f"worker {slot} is back: there is room for it again")
            self.worker_group.publish(stream, version=version)
            self.version = version

    def sleep(self) -> None:
        """Let the engines free their memory until the next `publish` wakes them."""
        with self.lock:
            self.worker_group.sleep()

    @property
    def dtype(self) -> str:
        """Of the engines' weights: in which the learner sends its own."""
        return self.worker_group.dtype

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> Groups:
        """Completions of each request, in order, and none for a task in quarantine; i is in share i mod workers."""
        with self.lock:
            return self._generate(requests, sampling)

    def _generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> Groups:
        count = self.worker_group.count
        shares = {
            slot: [i for i in range(slot, len(requests), count) if requests[i].prompt.task.id not in self.quarantine]
            for slot in range(count)
        }
        shares = {slot: share for slot, share in shares.items() if share}
        outcomes = self._run({slot: [requests[i] for i in share] for slot, share in shares.items()}, sampling)
        results: Groups = [[] for _ in requests]
        for slot, share in shares.items():
            outcome = outcomes[slot]
            if isinstance(outcome, Failure):
                outcome = self._without_culprits(slot, [requests[i] for i in share], sampling, outcome)
            for i, completions in zip(share, outcome, strict=True):
                results[i] = completions
        return results

    def generate_batch_again(self, slot: int, batch: Sequence[Request], sampling: SamplingConfig) -> Groups:
        """Completions of a batch whose worker failed and was replaced. The new worker generates them to the same bits.

        None for requests whose task makes one worker after the other fail.
        """
        with self.lock:
            outcome = self._run({slot: batch}, sampling, tries=TRIES - 1)[slot]
            return self._without_culprits(slot, batch, sampling, outcome) if isinstance(outcome, Failure) else outcome

    def generate_on_each(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[Groups]:
        """The completions of all requests from every worker."""
        with self.lock:
            outcomes = self._run(dict.fromkeys(self.worker_group.actors, requests), sampling)
        for slot, outcome in outcomes.items():
            if isinstance(outcome, Failure):
                raise WorkerError(f"worker {slot} failed {TRIES} times on the parity check: {outcome.headline}")
        return [found for _, found in sorted(outcomes.items()) if not isinstance(found, Failure)]

    def begin_step(self) -> None:
        """Forget what the workers did before: `take_use` counts from here."""
        self.worker_group.take_use()
        self._began = time.monotonic()

    def take_use(self) -> PoolUse:
        """What the workers did since `begin_step`."""
        reports, seconds = self.worker_group.take_use(), time.monotonic() - self._began
        return PoolUse(
            seconds=seconds,
            workers=len(self.worker_group.actors),
            gpus=self.worker_group.gpus,
            engines=[engine for engine, _ in reports],
            processes=[process for _, process in reports],
        )

    def metrics(self) -> dict[str, float]:
        """What went wrong, and what was padded, so far; see docs/metrics.md."""
        counts = {f"workers/{kind}s": float(self.failures[kind]) for kind in ("death", "exception", "hang")}
        return {
            **counts,
            "workers/retired": float(self.worker_group.retired),
            "workers/quarantined": float(len(self.quarantine)),
            "workers/padding": self.worker_group.padded_share(),
        }

    def close(self) -> None:
        """End the workers."""
        self.worker_group.close()

    # Generation that survives its workers

    def _run(
        self, shares: Mapping[int, Sequence[Request]], sampling: SamplingConfig, *, tries: int = TRIES
    ) -> dict[int, Groups | Failure]:
        """The completions of each share; its last failure where `tries` workers in a row failed.

        A share goes to the worker of its number. If that one is retired, it waits for any other to be free.
        """
        self.worker_group.start(list(self.worker_group.actors))
        left, waiting = dict.fromkeys(shares, tries), list(shares)
        outcomes: dict[int, Groups | Failure] = {}
        jobs: dict[int, _Job] = {}  # by the worker's slot
        while waiting or jobs:
            for share in list(waiting):
                if (slot := self._free_worker(share, busy=jobs)) is not None:
                    jobs[slot] = self._issue(slot, share, shares[share], sampling)
                    waiting.remove(share)
            ready, _ = ray.wait([job.future for job in jobs.values()], timeout=POLL_SECONDS)
            for slot, job in list(jobs.items()):
                outcome = self._look(slot, job, shares[job.share], done=job.future in ready)
                if outcome is None:
                    continue
                del jobs[slot]
                if isinstance(outcome, Failure):
                    self.replace(slot, outcome)
                    left[job.share] -= 1
                    if left[job.share]:
                        waiting.append(job.share)
                        continue
                outcomes[job.share] = outcome
        return outcomes

    def _free_worker(self, share: int, *, busy: Container[int]) -> int | None:
        actors = self.worker_group.actors
        candidates = [share] if share in actors else sorted(actors)
        return next((slot for slot in candidates if slot not in busy), None)

    def _issue(self, slot: int, share: int, requests: Sequence[Request], sampling: SamplingConfig) -> _Job:
        actor = self.worker_group.actors[slot]
        return _Job(share, actor.generate.remote(list(requests), sampling), Watch(actor))

    def _look(self, slot: int, job: _Job, share: Sequence[Request], *, done: bool) -> Groups | Failure | None:
        """The completions, how the worker failed, or None while it works."""
        if done:
            try:
                return ray.get(job.future)
            except RayError as error:
                return self.failure_of(slot, error)
        job.watch.look()
        if job.watch.silent_for < self.deadline:
            return None
        group = self.worker_group
        return Failure("hang", diagnose(slot, group.addresses[slot], group.actors[slot], job.watch, share))

    def failure_of(self, slot: int, error: RayError) -> Failure:
        """What Ray's error says of the worker in `slot`."""
        if isinstance(error, RayTaskError):
            cause = error.cause
            return Failure("exception", f"{type(cause).__name__}: {one_line(cause)}\n{_COLOUR.sub('', str(error))}")
        return Failure("death", f"process {self.worker_group.addresses[slot].pid}: {exit_of(error)}\n{error}")

    def _without_culprits(
        self, slot: int, share: Sequence[Request], sampling: SamplingConfig, failure: Failure
    ) -> Groups:
        """Completions of a share that fails as a whole. Its culprits go to quarantine; the rest is generated together.

        Together, so that a run that knows the culprits from the start gives the same completions.
        """
        before = self.failures.total()
        most = 1 + len(share) * self.worker_group.count // 16  # tasks that can be at fault

        def attempt(part: Sequence[Request]) -> Failure | None:
            outcome = self._run({slot: part}, sampling, tries=2 if len(part) == 1 else 1)[slot]
            return outcome if isinstance(outcome, Failure) else None

        try:
            culprits = find_culprits(share, attempt, failure, most=most)
        except TooManyCulprits as error:
            raise WorkerError(f"the workers fail on task after task, so the tasks are not at fault: {error}") from error
        for i, found in culprits.items():
            task = share[i].prompt.task
            self.quarantine.add(task, found, version=self.version, failures=TRIES + self.failures.total() - before)
            name = shorten(task.id, 100)
            self._say(f"task {name} goes to quarantine: {found.kind}; evidence in {self.quarantine.path}")
        rest = [i for i in range(len(share)) if i not in culprits]
        at_once = len(rest) if culprits else -(-len(rest) // 4)  # nobody to blame: it was too much at once
        results: Groups = [[] for _ in share]
        for start in range(0, len(rest), max(at_once, 1)):
            part = rest[start : start + at_once]
            outcome = self._run({slot: [share[i] for i in part]}, sampling)[slot]
            if isinstance(outcome, Failure):
                raise WorkerError(
                    f"worker {slot} fails on {len(part)} requests, and no task is to blame: {outcome.headline}. If "
                    "that is memory, lower rl.prompts_per_step or rl.sampling.max_new_tokens, or raise rl.workers"
                )
            for i, completions in zip(part, outcome, strict=True):
                results[i] = completions
        return results

    def replace(self, slot: int, failure: Failure) -> None:
        """A fresh worker with the current weights in place of one that failed, or none where no node has room."""
        self.worker_group.fresh(slot)
        self._report(slot, failure)
        self.worker_group.load([slot])

    def _report(self, slot: int, failure: Failure) -> None:
        """Count a failure, print a line, and keep its whole text in a file."""
        self.failures[failure.kind] += 1
        where = ""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self.failures.total():03d}-worker-{slot}-{failure.kind}.txt"
            path.write_text(failure.detail + "\n", encoding="utf-8")
            where = f" (all of it in {path})"
        counts = ", ".join(f"{count} {kind}s" for kind, count in sorted(self.failures.items()))
        fate = self.worker_group.fate(slot)
        self._say(f"worker {slot}: {failure.kind}: {failure.headline}{where}; {fate} (so far: {counts})")
