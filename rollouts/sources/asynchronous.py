"""Rollouts that run ahead: the stage functions of a synchronous step, behind a queue that the workers keep emptying.

    draw -> ask ->  [ workers, under whichever weights they have ]  -> score as they end -> wait for a step's groups

Groups of step s are asked once `s <= version + max_staleness`, so that groups asked, less those learnt from, are at
most (max_staleness + 1) * prompts_per_step. With max_staleness = 0 all draws and batches are those of `SyncSource`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from configs.rl import AsyncConfig, RLConfig
from rewards.scorer import Scorer
from rewards.types import Score, Task
from rollouts.sources.group_building import correct_flags, groups_with_signal, make_groups
from rollouts.sources.requests import Decode, request_seed
from rollouts.sources.reward_shaping import shape_rewards
from rollouts.sources.staleness import staleness_metrics
from rollouts.sources.sync import REFILL, Gathered
from rollouts.tasks.curriculum import Sampler
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Group, Request, Rollout, ScoredRollout
from rollouts.workers.dispatcher import ROOM, RequestDispatcher
from rollouts.workers.pool import RolloutPool


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingGroup:
    """A group that was drawn for `step` and asked under policy `version`."""

    step: int
    request: Request
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedGroup:
    """Its answers, and their scores, which may still be under way."""

    ticket: PendingGroup
    rollouts: tuple[Rollout, ...]
    scores: tuple[Future[Score], ...]

    @property
    def tokens(self) -> int:
        """Of all its answers."""
        return sum(len(r.completion.token_ids) for r in self.rollouts)

    @property
    def min_version(self) -> int:
        """The version that wrote its first token."""
        return min((s.version for r in self.rollouts for s in r.completion.segments), default=self.ticket.version)

    def scored(self) -> list[ScoredRollout]:
        """Waits for the verifiers, whose time is bounded."""
        return [ScoredRollout(rollout=r, score=f.result()) for r, f in zip(self.rollouts, self.scores, strict=True)]


class AsyncSource:
    """Gathers as `SyncSource` does, from groups that were asked up to `max_staleness` versions ago.

    `stale: wait`: a step learns from the groups drawn for it, in order, whichever end first. `stale: drop`: from the
    first that are complete; a group that was begun more than `max_staleness` versions ago is dropped, ended where it
    still runs, and its task asked anew. What is drawn and not learnt from is in `state_dict`.
    """

    def __init__(
        self,
        config: RLConfig,
        options: AsyncConfig,
        *,
        sampler: Sampler,
        renderer: PromptRenderer,
        pool: RolloutPool,
        scorer: Scorer,
        decode: Decode,
        seed: int,
    ) -> None:
        self.config, self.sampler, self.scorer, self.decode = config, sampler, scorer, decode
        self._options, self._renderer, self._pool, self._seed = options, renderer, pool, seed
        self._drawn = self._keys = 0  # steps, and groups that were asked
        self._unasked: dict[int, PendingGroup] = {}  # of a checkpoint
        self._running: dict[int, PendingGroup] = {}
        self._answered: dict[int, FinishedGroup] = {}
        self._skipped: dict[int, Counter[str]] = {}  # by step
        self._dropped: Counter[str] = Counter()  # tokens since the last step, by cause
        self._stale: list[FinishedGroup] = []  # dropped for this step
        # As a synchronous run deals: nothing is held back where nothing else waits.
        room = ROOM if options.max_staleness else None
        self._feed = RequestDispatcher(pool, config.sampling, on_answer=self._take_in, room=room)

    def gather(self, step: int) -> Gathered:
        """Ask ahead, wait for the groups of `step`, then for more while groups lack signal and the sampler has any."""
        self._resume()
        self.sampler.draw(step, 0)  # the step begins: its refills are counted anew
        for ahead in range(self._drawn, min(step + self._options.max_staleness + 1, self.config.steps)):
            with self._feed.turn:  # its thread decodes, and a tokenizer serves one thread at a time
                tasks = self.sampler.draw(ahead, self.config.prompts_per_step)
                self._ask(tasks, step=ahead, seed=request_seed(self._seed, ahead))
            self._drawn = ahead + 1
        taken = self._first_complete() if self._options.stale == "drop" else self._drawn_for(step)
        groups: list[Group] = []
        scored: list[list[ScoredRollout]] = []
        while taken:
            answers = [answered.scored() for answered in taken]
            prompts = [answered.ticket.request.prompt for answered in taken]
            new = [shape_rewards(g, self.config, step=step) for g in make_groups(prompts, answers)]
            self.sampler.observe([(g.prompt.task, correct_flags(g)) for g in new])
            groups, scored = groups + new, scored + answers
            missing = self.config.prompts_per_step - len(groups_with_signal(groups, self.config))
            taken = self._refill(missing, step=step, known=len(groups)) if missing > 0 else []
        dropped, self._dropped = self._dropped, Counter()
        stale, self._stale = self._stale, []
        return Gathered(
            groups=tuple(groups),
            scored=tuple(map(tuple, scored)),
            skipped=dict(self._skipped.pop(step, {})),
            unanswered=sum(not rollouts for rollouts in scored),
            dropped=dict(dropped),
            stale=tuple(tuple(answered.scored()) for answered in stale),
            extra=staleness_metrics(scored, version=self._pool.version) | self._depths(),
        )

    def close(self) -> None:
        """End the feed's thread; what runs is forgotten."""
        self._feed.close()

    # Asking and taking

    def _resume(self) -> None:
        """Ask again what was in flight when the checkpoint was made, under the weights that are served now."""
        unasked, self._unasked = self._unasked, {}
        self._begin({key: replace(ticket, version=self._pool.version) for key, ticket in unasked.items()})

    def _ask(self, tasks: Sequence[Task], *, step: int, seed: int) -> list[int]:
        """Render tasks and queue them; their keys."""
        prompts, left_out = self._renderer.render_all(tasks)
        self._skipped.setdefault(step, Counter()).update(left_out)
        n = self.config.samples_per_prompt
        requests = [Request(prompt=p, n=n, seed=request_seed(seed, i)) for i, p in enumerate(prompts)]
        return self._queue([PendingGroup(step=step, request=r, version=self._pool.version) for r in requests])

    def _queue(self, tickets: Sequence[PendingGroup]) -> list[int]:
        keyed = dict(enumerate(tickets, self._keys))
        self._keys += len(tickets)
        self._begin(keyed)
        return list(keyed)

    def _begin(self, keyed: Mapping[int, PendingGroup]) -> None:
        with self._feed.turn:
            self._running.update(keyed)
            self._feed.ask({key: ticket.request for key, ticket in keyed.items()})

    def _take_in(self, key: int, completions: list[Completion]) -> None:
        """Called by the feed: begin to score what has ended."""
        ticket = self._running.pop(key, None)
        if ticket is None:  # dropped while it ran
            self._dropped["aborted"] += sum(len(c.token_ids) for c in completions)
            return
        prompt = ticket.request.prompt
        rollouts = [
            Rollout(prompt=prompt, index=i, completion=c, text=self.decode(c.token_ids))
            for i, c in enumerate(completions)
        ]
        scores = self.scorer.submit([r.text for r in rollouts], prompt.task) if rollouts else []
        self._answered[key] = FinishedGroup(ticket=ticket, rollouts=tuple(rollouts), scores=tuple(scores))

    def _collect(self, keys: Sequence[int]) -> list[FinishedGroup]:
        """Wait for these, and take them out."""
        self._feed.wait_until(lambda: all(key in self._answered for key in keys))
        return [self._answered.pop(key) for key in keys]

    def _drawn_for(self, step: int) -> list[FinishedGroup]:
        with self._feed.turn:
            waiting = {**self._running, **{key: a.ticket for key, a in self._answered.items()}}
        return self._collect(sorted(key for key, ticket in waiting.items() if ticket.step == step))

    def _first_complete(self) -> list[FinishedGroup]:
        """The oldest complete groups, as many as a step takes, once there are so many that are not too old."""
        self._drop_stale()
        with self._feed.turn:
            wanted = min(self.config.prompts_per_step, len(self._running) + len(self._answered))
        self._feed.wait_until(lambda: len(self._answered) >= wanted)
        with self._feed.turn:
            keys = sorted(self._answered)[:wanted]
        return self._collect(keys)

    def _drop_stale(self) -> None:
        """Ask the tasks of groups anew that are too old to be learnt from."""
        with self._feed.turn:
            oldest = self._pool.version - self._options.max_staleness
            complete = [key for key, answered in self._answered.items() if answered.min_version < oldest]
            running = [key for key, ticket in self._running.items() if ticket.version < oldest]
            self._stale = [self._answered.pop(key) for key in complete]
            self._dropped["stale"] += sum(answered.tokens for answered in self._stale)
            tickets = {key: answered.ticket for key, answered in zip(complete, self._stale, strict=True)}
            tickets |= {key: self._running.pop(key) for key in running}
            self._feed.cancel(running)
            self._queue([self._anew(ticket) for _, ticket in sorted(tickets.items())])

    def _anew(self, ticket: PendingGroup) -> PendingGroup:
        request = replace(ticket.request, seed=request_seed(ticket.request.seed, 1))
        return replace(ticket, request=request, version=self._pool.version)

    def _refill(self, missing: int, *, step: int, known: int) -> list[FinishedGroup]:
        """More groups for the same step in place of those without signal, where the sampler gives any."""
        seed = request_seed(request_seed(self._seed, step), REFILL + known)
        with self._feed.turn:
            keys = self._ask(self.sampler.refill(missing), step=step, seed=seed)
        return self._collect(keys)

    def _depths(self) -> dict[str, float]:
        waiting, running = self._feed.depths()
        with self._feed.turn:
            ready = len(self._answered)
        return {"queue/waiting": float(waiting), "queue/running": float(running), "queue/ready": float(ready)}

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What was drawn and not learnt from, in order: complete groups with their scores, and tasks to ask again."""
        with self._feed.turn:
            tickets = {**self._running, **{key: a.ticket for key, a in self._answered.items()}}
            answered = dict(self._answered)
        return {
            "drawn": self._drawn,
            "groups": [_told(ticket, answered.get(key)) for key, ticket in sorted(tickets.items())],
            "skipped": {step: dict(counts) for step, counts in self._skipped.items()},
            "dropped": dict(self._dropped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict()`: complete groups are kept, tasks in flight are asked again at the next `gather`."""
        self._drawn = state["drawn"]
        self._skipped = {step: Counter(counts) for step, counts in state["skipped"].items()}
        self._dropped = Counter(state["dropped"])
        for told in state["groups"]:
            prompt = self._renderer.render(told["task"])
            request = Request(prompt=prompt, n=self.config.samples_per_prompt, seed=told["seed"])
            ticket = PendingGroup(step=told["step"], request=request, version=told["version"])
            if told["answers"] is None:
                self._unasked[self._keys] = ticket
            else:
                self._answered[self._keys] = _restored(ticket, told["answers"])
            self._keys += 1


def _told(ticket: PendingGroup, answered: FinishedGroup | None) -> dict[str, Any]:
    """A group for a checkpoint. Prompts are left out: they are rendered again, and patches are large."""
    return {
        "step": ticket.step,
        "version": ticket.version,
        "task": ticket.request.prompt.task,
        "seed": ticket.request.seed,
        "answers": answered and [(m.rollout.completion, m.rollout.text, m.score) for m in answered.scored()],
    }


def _restored(ticket: PendingGroup, answers: Sequence[tuple[Completion, str, Score]]) -> FinishedGroup:
    prompt = ticket.request.prompt
    return FinishedGroup(
        ticket=ticket,
        rollouts=tuple(
            Rollout(prompt=prompt, index=i, completion=c, text=text) for i, (c, text, _) in enumerate(answers)
        ),
        scores=tuple(_done(score) for _, _, score in answers),
    )


def _done(score: Score) -> Future[Score]:
    future: Future[Score] = Future()
    future.set_result(score)
    return future
