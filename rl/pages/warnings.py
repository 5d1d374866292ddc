"""What a report warns of: plain rules on the metrics of a stage, each with its evidence and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.text import counted

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A metric whose value asks for a look."""

    metric: str
    wrong: Callable[[float], bool]
    says: str
    advice: str
    most_steps: float = 0.0  # share of the steps in which it is no news


RULES = (
    Rule(
        metric="skipped_updates",
        wrong=lambda value: value > 0,
        says="updates were skipped, for a gradient that was not finite or a spike",
        advice="thinkvl replay RUN STEP shows the cause",
    ),
    Rule(
        metric="verifier_failures",
        wrong=lambda value: value > 0,
        says="verifiers failed on some rollouts, which left their groups",
        advice="look at them in the book: filter by timeout, crash, bad reference",
    ),
    Rule(
        metric="signal_share",
        wrong=lambda value: value < 0.1,
        says="fewer than one group in ten had a signal",
        advice="the tasks are too easy or too hard: choose others, or another rl.task_sampler",
        most_steps=0.2,
    ),
    Rule(
        metric="truncated_share",
        wrong=lambda value: value > 0.1,
        says="more than one completion in ten was cut off",
        advice="raise rl.sampling.max_new_tokens, or the weight of the length reward",
        most_steps=0.2,
    ),
    Rule(
        metric="approx_kl",
        wrong=lambda value: value > 0.1,
        says="the policy moved far from the one that sampled",
        advice="lower the learning rate, or take fewer minibatches",
        most_steps=0.05,
    ),
    Rule(
        metric="clip_fraction",
        wrong=lambda value: value > 0.3,
        says="the clip removed the gradient of many tokens",
        advice="lower the learning rate, or take fewer epochs",
        most_steps=0.05,
    ),
    Rule(
        metric="workers/hangs",
        wrong=lambda value: value > 0,
        says="workers made no progress and were replaced",
        advice="read failures/ in the run's folder",
    ),
    Rule(
        metric="workers/quarantined",
        wrong=lambda value: value > 0,
        says="tasks are in quarantine, since no worker survived them",
        advice="read quarantine.json in the run's folder",
    ),
)


def warnings_of(stage: str, rows: Sequence[Row]) -> list[str]:
    """A sentence for each rule that a stage's metrics break, with the steps that show it."""
    found = []
    for rule in RULES:
        steps = [
            row["step"]
            for row in rows
            if isinstance(row.get(rule.metric), int | float) and rule.wrong(row[rule.metric])
        ]
        if steps and len(steps) > rule.most_steps * len(rows):
            found.append(f"{stage}: {rule.says} ({_where(steps, len(rows))}); {rule.advice}.")
    broken = {
        name: [row["step"] for row in rows if name in row and row[name] is None] for name in ("loss", "grad_norm")
    }
    found += [
        f"{stage}: {name} was not finite ({_where(steps, len(rows))}); thinkvl replay RUN STEP shows the cause."
        for name, steps in broken.items()
        if steps
    ]
    return found


def _where(steps: Sequence[int], total: int) -> str:
    return f"in {len(steps)} of {counted(total, 'step')}, first in step {steps[0]}, last in step {steps[-1]}"
