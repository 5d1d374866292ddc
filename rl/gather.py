"""One step's rollouts: tasks drawn, asked, scored and shaped; groups without signal refilled where the sampler does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from configs.rl import RLConfig
from rewards.scorer import Scorer
from rewards.types import VerdictKind
from rl.collect import group_metrics, learnable, make_groups, shape
from rl.evaluate import Decode, Generate, request_seed, sample_and_score
from rollouts.prompts import PromptRenderer
from rollouts.samplers import Sampler
from rollouts.types import Group, ScoredRollout

REFILL = 1 << 32  # requests of later rounds draw from streams of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What a step gathered; `scored` holds every rollout of each group, those whose verifier failed too."""

    groups: tuple[Group, ...]
    scored: tuple[tuple[ScoredRollout, ...], ...]
    skipped: Mapping[str, int]  # tasks that could not be asked, by reason
    unanswered: int  # tasks in quarantine
    dropped: Mapping[str, int] = field(default_factory=dict)  # tokens of answers that did not reach a step, by cause
    extra: Mapping[str, float] = field(default_factory=dict)  # metrics of how it was gathered

    def metrics(self) -> dict[str, float]:
        """See docs/metrics.md."""
        left_out = {**self.skipped, **({"quarantine": self.unanswered} if self.unanswered else {})}
        skipped = {f"skipped/{reason}": float(n) for reason, n in left_out.items()}
        return {**group_metrics(self.groups), **skipped, **self.extra}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gatherer:
    """Asks the policy. Everything it draws depends on the seed, the step and the sampler's state alone."""

    config: RLConfig
    sampler: Sampler
    renderer: PromptRenderer
    generate: Generate
    scorer: Scorer
    decode: Decode
    seed: int

    def gather(self, step: int) -> Gathered:
        """Ask the tasks of `step`, then more while groups lack signal and the sampler gives any."""
        wanted, seed = self.config.prompts_per_step, request_seed(self.seed, step)
        groups: list[Group] = []
        scored: list[list[ScoredRollout]] = []
        skipped: Counter[str] = Counter()
        tasks = self.sampler.draw(step, wanted)
        while tasks:
            prompts, left_out = self.renderer.render_all(tasks)
            skipped.update(left_out)
            answers = sample_and_score(
                self.generate,
                self.decode,
                self.scorer,
                prompts,
                sampling=self.config.sampling,
                n=self.config.samples_per_prompt,
                seed=seed if not groups else request_seed(seed, REFILL + len(groups)),
            )
            new = [shape(g, self.config, step=step) for g in make_groups(prompts, answers)]
            self.sampler.observe([(g.prompt.task, correct(g)) for g in new])
            groups, scored = groups + new, scored + answers
            missing = wanted - len(learnable(groups, self.config))
            tasks = self.sampler.refill(missing) if missing > 0 else []
        return Gathered(
            groups=tuple(groups),
            scored=tuple(map(tuple, scored)),
            skipped=dict(skipped),
            unanswered=sum(not rollouts for rollouts in scored),
        )

    def close(self) -> None:
        """Nothing runs between two steps."""


def correct(group: Group) -> list[bool]:
    """Which of a group's answers are."""
    return [m.score.verdict.kind is VerdictKind.CORRECT for m in group.members]
