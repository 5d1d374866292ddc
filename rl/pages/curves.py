"""Which curves a report draws for a stage, and what each looks like in a healthy run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl.metrics_table import EVALUATION, PREFERENCE, RL, SUPERVISED, VIT, Metric
from rl.pages.charts import Line
from rl.run.accuracy import wilson

Row = Mapping[str, Any]
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A chart of one or more metrics. What is healthy is what the table of metrics says of each."""

    title: str
    metrics: tuple[str, ...]  # a name that ends in `/` stands for all that begin with it
    share: bool = False
    log: bool = False
    events: bool = False  # counts of what should not happen: drawn where something did


_SPEED_AND_MEMORY = (
    Curve(title="Throughput (tokens a second)", metrics=("tokens_per_second/learner", "tokens_per_second/rollouts")),
    Curve(title="Memory of the processes (GB)", metrics=("memory/learner", "memory/workers", "memory/driver")),
    Curve(title="Memory of the cards (GB)", metrics=("cuda_memory/learner", "cuda_memory/workers")),
)
RL_CURVES = (
    Curve(title="Reward", metrics=("reward",)),
    Curve(title="Accuracy", metrics=("accuracy",), share=True),
    Curve(title="Accuracy by source", metrics=("accuracy/",), share=True),
    Curve(title="Length of a completion (tokens)", metrics=("tokens_mean",)),
    Curve(title="Thinks; cut off", metrics=("thinking_share", "truncated_share"), share=True),
    Curve(title="Entropy (nats)", metrics=("entropy",)),
    Curve(title="KL to the policy that sampled (nats)", metrics=("approx_kl",)),
    Curve(title="KL to the reference model (nats)", metrics=("kl_reference",)),
    Curve(title="Clipped tokens", metrics=("clip_fraction",)),
    Curve(title="Largest gap of log-probs, engine and learner (nats)", metrics=("logprob_gap_max",), log=True),
    Curve(title="Importance weights", metrics=("correction_mean", "correction_outside")),
    Curve(title="Staleness (policy versions)", metrics=("staleness_mean", "staleness_max")),
    Curve(title="Groups with signal", metrics=("signal_share",), share=True),
    Curve(
        title="Tokens that are not trained on",
        metrics=("discarded/filtered", "discarded/truncated", "discarded/stale"),
        share=True,
    ),
    Curve(title="Norm of the gradient", metrics=("grad_norm",), log=True),
    Curve(
        title="Seconds of a step, by phase",
        metrics=("seconds/rollout", "seconds/update", "seconds/record", "seconds/publish"),
    ),
    *_SPEED_AND_MEMORY,
    Curve(
        title="Workers that were replaced",
        metrics=("workers/deaths", "workers/exceptions", "workers/hangs"),
        events=True,
    ),
    Curve(title="Verifications that failed", metrics=("verifier_failures",), events=True),
)
LOSS_CURVES = (
    Curve(title="Loss (nats)", metrics=("loss",), log=True),
    Curve(title="Loss by source (nats)", metrics=("loss/",), log=True),
    Curve(title="Norm of the gradient", metrics=("grad_norm",), log=True),
    Curve(title="Pairs that are told apart", metrics=("preference_accuracy", "batch_recall"), share=True),
    Curve(title="Tokens of a step", metrics=("sequence_tokens", "tokens")),
    *_SPEED_AND_MEMORY,
)
VALIDATION_CURVES = (
    Curve(title="Greedy accuracy on validation tasks", metrics=("greedy_accuracy",), share=True),
    Curve(title="Sampled accuracy on validation tasks", metrics=("sampled_accuracy",), share=True),
)
TABLES: Mapping[str, tuple[Metric, ...]] = {"rl": RL, "vit": VIT, "long2short": (*PREFERENCE, *SUPERVISED)}


def curves_of(kind: str) -> tuple[Curve, ...]:
    """The curves of a kind of stage."""
    return RL_CURVES if kind == "rl" else LOSS_CURVES


def lines_of(curve: Curve, rows: Sequence[Row]) -> list[Line]:
    """The lines of a curve over the rows of a stage's metrics; without any, the run has not measured it."""
    names = [name for metric in curve.metrics for name in _matching(metric, rows)]
    xs = [row["step"] for row in rows]
    lines = [Line(name=_short(name), xs=xs, ys=values(rows, name)) for name in names]
    known = [line for line in lines if line.known]
    return known if len(known) > 1 or "by source" not in curve.title else []


def validation_line(rows: Sequence[Row]) -> Line:
    """Greedy accuracy on the validation tasks, with its 95 % interval (Wilson)."""
    accuracies = values(rows, "greedy_accuracy")
    ends = [wilson(share, row.get("tasks") or 0) for share, row in zip(accuracies, rows, strict=True)]
    return Line(
        name="greedy, validation",
        xs=[row["step"] for row in rows],
        ys=accuracies,
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
        marked=True,
    )


def healthy(kind: str, curve: Curve, lines: Sequence[str] = ()) -> str:
    """What a healthy run shows of the lines that are drawn, from the table of metrics; empty where it has none.

    It is one sentence where it is the same for all; else each begins with the name of its line.
    """
    found = {_short(name): text for name in curve.metrics if (text := _healthy(kind, name))}
    found = {name: text for name, text in found.items() if not lines or name in lines} or found
    if len(set(found.values())) == 1:
        return f"Healthy: {next(iter(found.values()))}."
    return f"Healthy: {'. '.join(f'{name} {text}' for name, text in found.items())}." if found else ""


def is_of(kind: str, curve: Curve) -> bool:
    """Whether a kind of stage measures a metric of the curve at all."""
    return any(_metric(kind, name) for name in curve.metrics)


def _healthy(kind: str, name: str) -> str:
    metric = _metric(kind, name)
    return _LINK.sub(r"\1", metric.healthy).replace("`", "") if metric and metric.healthy else ""


def _metric(kind: str, name: str) -> Metric | None:
    """The entry of a metric in the tables; of several that match, the first that says what is healthy."""
    full = name + ("x" if name.endswith("/") else "")
    tables = (*TABLES.get(kind, SUPERVISED), *EVALUATION)
    found = [m for m in tables if re.fullmatch(re.sub(r"[A-Z]{2,}", ".+", m.name), full)]
    return next((m for m in found if m.healthy), found[0] if found else None)


def _short(name: str) -> str:
    """What the legend calls a metric."""
    return name.rpartition("/")[2] or name


def values(rows: Sequence[Row], name: str) -> list[float]:
    """A metric of each row; NaN where it is missing or was not finite."""
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def _matching(metric: str, rows: Sequence[Row]) -> list[str]:
    if not metric.endswith("/"):
        return [metric]
    found = {name for row in rows for name in row if name.startswith(metric)}
    return sorted(found)[:6]
