"""Where a step gets its groups from: one mechanism for synchronous, asynchronous and partial rollouts.

    choose tasks -> submit -> [ engines, under the weights that they serve ] -> score as groups finish -> next_groups

Tasks of step s are submitted as soon as `s <= step + window`. The window is `rl.asynchronous.max_staleness`, and 0 in
a synchronous run, so at most (window + 1) * prompts_per_step groups are submitted and not trained on. With
`rl.partial` a group that runs out of its token budget continues in the next step.

With a window, the dispatcher keeps the workers busy beside the learner. Without one it makes batches that depend on the
seed, the step and the tasks alone, because a synchronous run resumes to the bit (`rollouts/workers/dispatcher.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from configs.rl import RLConfig
from rewards.types import Task
from rollouts.sources.partial import PartialBudget
from rollouts.sources.pending import FinishedGroup, PendingGroup, finished_from, group_state, pending_from
from rollouts.sources.rollout_pipeline import RolloutPipeline, request_seed
from rollouts.sources.source import SourceReport
from rollouts.sources.staleness import staleness_metrics
from rollouts.types import Completion, Request
from rollouts.workers.dispatcher import ROOM, RequestDispatcher
from rollouts.workers.pool import RolloutPool

REFILL = 1 << 32  # requests of refills draw from streams of their own


class WindowedSource:
    """The source of every run; the recipe says how large its window is, and what happens to old groups.

    `stale: wait`: a step trains on the groups whose tasks were chosen for it, in that order. `stale: drop`: it trains
    on the first groups that are finished. A group whose first token is more than `max_staleness` versions old is
    dropped, and its task is submitted again. Requests depend on the seed, the step and the tasks alone.
    """

    def __init__(
        self,
        config: RLConfig,
        pipeline: RolloutPipeline,
        pool: RolloutPool,
        *,
        seed: int,
        dispatcher: Callable[..., RequestDispatcher] = RequestDispatcher,
    ) -> None:
        self.config, self.pipeline = config, pipeline
        self._pool, self._seed, self._options = pool, seed, config.asynchronous
        self._window = config.asynchronous.max_staleness if config.asynchronous else 0
        self._budget = PartialBudget(config.partial, steps=config.steps) if config.partial else None
        self._step = self._chosen = self._keys = 0  # current step; steps whose tasks were chosen; groups so far
        self._submitted: Counter[int] = Counter()  # groups by step
        self._skipped: dict[int, Counter[str]] = {}  # by step
        self._paused: dict[int, PendingGroup] = {}  # out of budget, or from a checkpoint: for the next step
        self._running: dict[int, PendingGroup] = {}
        self._arrived: dict[int, FinishedGroup] = {}  # of batches that are not complete, with scores on their way
        self._finished: dict[int, FinishedGroup] = {}
        self._taken: list[FinishedGroup] = []  # by the current step
        self._stale: list[FinishedGroup] = []  # dropped in the current step
        self._dropped: Counter[str] = Counter()  # tokens since the last step, by cause
        room = ROOM if self._window else None
        self._dispatcher = dispatcher(
            pool, config.sampling, on_completions=self._receive, on_arrival=self._arrive, room=room
        )

    @property
    def unfinished(self) -> int:
        """Number of groups that ran out of budget in this step and continue in the next one."""
        return len(self._paused)

    def begin_step(self, step: int) -> range:
        """Continue what is unfinished. Returns the steps whose tasks must be chosen and submitted now."""
        self._step, self._taken = step, []
        if self._budget is not None:
            self._budget.begin_step()
        paused, self._paused = sorted(self._paused.items()), {}  # workers finish in any order; batches must not
        self._start({key: replace(pending, version=self._pool.version) for key, pending in paused})
        first, self._chosen = self._chosen, max(self._chosen, min(step + self._window + 1, self.config.steps))
        return range(first, self._chosen)

    def submit(self, tasks: Sequence[Task], *, step: int) -> list[int]:
        """Begin to generate a group for each task of `step`; tasks that cannot be rendered are counted.

        A group's id is the step, counted from 1, and its number in the step. Returns the groups' keys.
        """
        large = self.pipeline.render_large(tasks)
        with self._dispatcher.lock:  # whose thread decodes: a tokenizer serves one thread at a time
            prompts, left_out = self.pipeline.render(tasks, large)
            self._skipped.setdefault(step, Counter()).update(left_out)
            before = self._submitted[step]
            self._submitted[step] += len(prompts)
            seed = request_seed(self._seed, step)
            seed = request_seed(seed, REFILL + before) if before else seed
            groups = []
            for i, prompt in enumerate(prompts):
                prompt = replace(prompt, id=f"{step + 1}.{before + i}")
                request = Request(prompt=prompt, n=self.config.samples_per_prompt, seed=request_seed(seed, i))
                groups.append(PendingGroup(step=step, version=self._pool.version, request=request))
            return self._start_new(groups)

    def next_groups(self, step: int) -> list[FinishedGroup]:
        """Wait for the groups that `step` trains on."""
        if self._options is not None and self._options.stale == "drop":
            return self.wait_for(self._first_finished(self._options.max_staleness))
        with self._dispatcher.lock:
            known = {**self._running, **{key: group.pending for key, group in self._finished.items()}}
        return self.wait_for(sorted(key for key, pending in known.items() if pending.step <= step))

    def wait_for(self, keys: Sequence[int]) -> list[FinishedGroup]:
        """Wait for these groups; those that run out of budget are left out."""
        self._dispatcher.wait_until(lambda: not any(key in self._running for key in keys))
        taken = [self._finished.pop(key) for key in keys if key in self._finished]
        self._taken += taken
        return taken

    def report(self, step: int) -> SourceReport:
        """What happened since the last report."""
        dropped, self._dropped = self._dropped, Counter()
        stale, self._stale = self._stale, []
        del self._submitted[step]
        metrics = self._budget.metrics(pending=self.unfinished) if self._budget is not None else {}
        if self._options is not None:
            completions = [r.completion for group in self._taken for r in group.rollouts]
            metrics |= staleness_metrics(completions, version=self._pool.version) | self._depths()
        return SourceReport(
            skipped=dict(self._skipped.pop(step, {})),
            dropped_tokens=dict(dropped),
            stale=tuple(group.scored() for group in stale),
            metrics=metrics,
        )

    def close(self) -> None:
        """End the dispatcher; what runs is forgotten."""
        self._dispatcher.close()

    # Groups on their way

    def _start_new(self, groups: Sequence[PendingGroup]) -> list[int]:
        keyed = dict(enumerate(groups, self._keys))
        self._keys += len(groups)
        self._start(keyed)
        return list(keyed)

    def _start(self, groups: Mapping[int, PendingGroup]) -> None:
        budget = self._budget.tokens(self._step) if self._budget is not None else None
        with self._dispatcher.lock:
            self._running.update(groups)
            self._dispatcher.submit({key: replace(group.request, budget=budget) for key, group in groups.items()})

    def _arrive(self, key: int, completions: list[Completion]) -> None:
        """Called by the dispatcher: begin to score a group while others of its batch are generated."""
        pending = self._running.get(key)
        if pending is not None and all(c.finish_reason != "abort" for c in completions):
            self._arrived[key] = self._begin_scoring(pending, completions)

    def _receive(self, key: int, completions: list[Completion]) -> None:
        """Called by the dispatcher: begin to score a finished group, or keep one that is out of budget."""
        pending, arrived = self._running.pop(key, None), self._arrived.pop(key, None)
        if pending is None:  # dropped while it ran
            self._dropped["aborted"] += sum(len(c.token_ids) for c in completions)
            return
        if self._budget is not None:
            completions = self._budget.end_long(completions)
            if any(c.finish_reason == "abort" for c in completions):
                self._paused[key] = replace(pending, request=replace(pending.request, prefixes=tuple(completions)))
                return
            self._budget.count(completions, prefixes=pending.request.prefixes)
        again = arrived is not None and arrived.with_completions(completions)
        self._finished[key] = again or self._begin_scoring(pending, completions)

    def _begin_scoring(self, pending: PendingGroup, completions: Sequence[Completion]) -> FinishedGroup:
        rollouts = self.pipeline.rollouts(pending.prompt, completions)
        scores = self.pipeline.begin_scoring(rollouts)
        return FinishedGroup(pending=pending, rollouts=tuple(rollouts), scores=tuple(scores))

    def _first_finished(self, max_staleness: int) -> list[int]:
        """Keys of the finished groups submitted first, as many as a step takes, once so many are not too old."""
        self._drop_stale(max_staleness)
        with self._dispatcher.lock:
            wanted = min(self.config.prompts_per_step, len(self._running) + len(self._finished))
        self._dispatcher.wait_until(lambda: len(self._finished) >= wanted)
        with self._dispatcher.lock:
            return sorted(self._finished)[:wanted]

    def _drop_stale(self, max_staleness: int) -> None:
        """Drop groups that are too old to be trained on, and submit their tasks again."""
        with self._dispatcher.lock:
            oldest = self._pool.version - max_staleness
            finished = [key for key, group in self._finished.items() if group.min_version < oldest]
            running = [key for key, pending in self._running.items() if pending.version < oldest]
            self._stale = [self._finished.pop(key) for key in finished]
            self._dropped["stale"] += sum(group.tokens for group in self._stale)
            dropped = {key: group.pending for key, group in zip(finished, self._stale, strict=True)}
            dropped |= {key: self._running.pop(key) for key in running}
            self._dispatcher.cancel(running)
            self._start_new([self._retry(pending) for _, pending in sorted(dropped.items())])

    def _retry(self, pending: PendingGroup) -> PendingGroup:
        """The same task for the weights that are served now, with other random numbers and another id."""
        prompt = replace(pending.prompt, id=f"{pending.prompt.id}.retry")
        request = replace(pending.request, prompt=prompt, seed=request_seed(pending.request.seed, 1))
        return replace(pending, request=request, version=self._pool.version)

    def _depths(self) -> dict[str, float]:
        waiting, running = self._dispatcher.depths()
        with self._dispatcher.lock:
            ready = len(self._finished)
        return {"queue/waiting": float(waiting), "queue/running": float(running), "queue/ready": float(ready)}

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The groups that no step has trained on, in order: finished ones with their scores, others to submit again."""
        with self._dispatcher.lock:
            finished = dict(self._finished)
            groups = {**self._running, **self._paused, **{key: group.pending for key, group in finished.items()}}
        return {
            "chosen": self._chosen,
            "groups": [group_state(pending, finished.get(key)) for key, pending in sorted(groups.items())],
            "submitted": dict(self._submitted),
            "skipped": {step: dict(counts) for step, counts in self._skipped.items()},
            "dropped": dict(self._dropped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict()`. Finished groups are kept; the others are submitted again by `begin_step`."""
        self._chosen, self._submitted = state["chosen"], Counter(state["submitted"])
        self._skipped = {step: Counter(counts) for step, counts in state["skipped"].items()}
        self._dropped = Counter(state["dropped"])
        for group in state["groups"]:
            pending = pending_from(group, self.pipeline.renderer)
            if group["finished"] is None:
                self._paused[self._keys] = pending
            else:
                self._finished[self._keys] = finished_from(pending, group["finished"])
            self._keys += 1
