"""One step's rollouts: tasks drawn, asked, scored and shaped; groups without signal refilled where the sampler does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from configs.rl import RLConfig
from rewards.scorer import Scorer
from rollouts.sources.group_building import correct_flags, group_metrics, groups_with_signal, make_groups
from rollouts.sources.partial import PartialRollouts
from rollouts.sources.requests import Decode, Generate, make_requests, request_seed
from rollouts.sources.reward_shaping import shape_rewards
from rollouts.sources.scoring import score_completions
from rollouts.tasks.curriculum import Sampler
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Group, Request, ScoredRollout

REFILL = 1 << 32  # requests of later rounds draw from streams of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a step gathered; `scored` holds every rollout of each group, those whose verifier failed too."""

    groups: tuple[Group, ...]
    scored: tuple[tuple[ScoredRollout, ...], ...]
    skipped: Mapping[str, int]  # tasks that could not be asked, by reason
    unanswered: int  # tasks in quarantine
    dropped: Mapping[str, int] = field(default_factory=dict)  # tokens of answers that did not reach a step, by cause
    stale: tuple[tuple[ScoredRollout, ...], ...] = ()  # groups that grew too old: in the log, and nowhere else
    extra: Mapping[str, float] = field(default_factory=dict)  # metrics of how it was gathered

    def metrics(self) -> dict[str, float]:
        """See docs/metrics.md."""
        left_out = {**self.skipped, **({"quarantine": self.unanswered} if self.unanswered else {})}
        skipped = {f"skipped/{reason}": float(n) for reason, n in left_out.items()}
        return {**group_metrics(self.groups), **skipped, **self.extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSource:
    """Asks the policy. Everything it draws depends on the seed, the step and the sampler's state alone."""

    config: RLConfig
    sampler: Sampler
    renderer: PromptRenderer
    generate: Generate
    scorer: Scorer
    decode: Decode
    seed: int
    partial: PartialRollouts | None = None  # answers may take several steps

    def gather(self, step: int) -> Gathered:
        """Ask the tasks of `step`, then more while groups lack signal and the sampler gives any.

        With partial rollouts, what is pending goes on first, and the groups are those that are done, whenever asked.
        """
        wanted, seed = self.config.prompts_per_step, request_seed(self.seed, step)
        groups: list[Group] = []
        scored: list[list[ScoredRollout]] = []
        skipped: Counter[str] = Counter()
        asked = 0
        tasks = self.sampler.draw(step, wanted)
        while tasks:
            prompts, left_out = self.renderer.render_all(tasks)
            skipped.update(left_out)
            own = seed if not asked else request_seed(seed, REFILL + asked)
            prompts = [replace(p, id=f"{step + 1}.{asked + i}") for i, p in enumerate(prompts)]
            asked += len(prompts)
            requests, answers = self._ask(make_requests(prompts, n=self.config.samples_per_prompt, seed=own), step)
            rollouts = score_completions(self.decode, self.scorer, requests, answers)
            new = [
                shape_rewards(g, self.config, step=step) for g in make_groups([r.prompt for r in requests], rollouts)
            ]
            self.sampler.observe([(g.prompt.task, correct_flags(g)) for g in new])
            groups, scored = groups + new, scored + rollouts
            pending = 0 if self.partial is None else len(self.partial)
            missing = wanted - len(groups_with_signal(groups, self.config)) - pending
            tasks = self.sampler.refill(missing) if missing > 0 else []
        return Gathered(
            groups=tuple(groups),
            scored=tuple(map(tuple, scored)),
            skipped=dict(skipped),
            unanswered=sum(not rollouts for rollouts in scored),
            extra={} if self.partial is None else self.partial.metrics(),
        )

    def _ask(self, requests: list[Request], step: int) -> tuple[list[Request], list[list[Completion]]]:
        """The requests that are done, with their answers."""
        if self.partial is not None:
            return self.partial.ask(requests, self.config.sampling, step=step)
        return requests, self.generate(requests, self.config.sampling)

    def close(self) -> None:
        """Nothing runs between two steps."""

    def state_dict(self) -> dict[str, Any]:
        """What is not done between two steps; the sampler's state is its own."""
        return {} if self.partial is None else self.partial.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict()`."""
        if self.partial is not None:
            self.partial.load_state_dict(state, self.renderer)
