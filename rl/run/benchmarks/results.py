"""The figures of a benchmark from its predictions, and the Markdown table of all benchmarks in a folder."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from configs.json_io import read_json
from rewards.types import REWARD_KINDS
from rl.run.accuracy import bootstrap
from rl.run.benchmarks.predictions import Prediction
from rollouts.tasks.benchmarks.layout import Benchmark

_SHOWN = ("title", "metric", "accuracy", "interval", "answered", "rows", "no_answer_share", "mean_tokens")
_JUDGED = frozenset(kind.value for kind in REWARD_KINDS)


def figures(benchmark: Benchmark, predictions: Sequence[Prediction], *, seed: int) -> dict[str, Any]:
    """The contents of `NAME.json` without the settings.

    `accuracy` is the mean score over the responses that have a verdict, NaN where there is none, and
    `accuracy_of_all` counts every other row as wrong.
    """
    answered = [p for p in predictions if not p.left_out]
    judged = [p for p in answered if p.kind in _JUDGED]
    interval = bootstrap([p.score for p in judged], seed=seed)
    tokens = [p.tokens for p in answered if p.tokens is not None]
    return {
        "title": benchmark.title,
        "metric": benchmark.metric,
        "rows": len(predictions),
        "answered": len(answered),
        "accuracy": interval.value,
        "interval": asdict(interval),
        "accuracy_of_all": sum(p.score for p in judged) / len(predictions) if predictions else math.nan,
        "left_out": dict(Counter(p.left_out for p in predictions if p.left_out)),
        "verifier_failures": len(answered) - len(judged),
        "no_answer_share": _share([p.kind == "no_answer" for p in judged]),
        "thinking_share": _share([p.thinks for p in answered]),
        "truncated_share": _share([p.cut_off for p in answered]),
        "mean_tokens": _share(tokens),
        "groups": _groups(judged),
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as a Markdown table, one line for each benchmark."""
    lines = [
        "| benchmark | metric | value | 95 % interval | questions | left out | no answer | tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        interval = row["interval"]
        lines.append(
            f"| {row['title']} | {row['metric']} | {_percent(row['accuracy'])} "
            f"| {_percent(interval['low'])} to {_percent(interval['high'])} | {row['answered']} "
            f"| {row['rows'] - row['answered']} | {_percent(row['no_answer_share'])} "
            f"| {_number(row['mean_tokens'])} |"
        )
    return "\n".join(lines)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder by name; none where there is no such folder. Raises UserError for a damaged file."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    results = [read_json(file, dict[str, Any]) for file in files]
    for file, found in zip(files, results, strict=True):
        missing = [key for key in (*_SHOWN, "settings") if key not in found]
        if missing:
            raise UserError(f"{file}: is no result of a benchmark: it lacks {', '.join(missing)}; move it away")
    return results


def _groups(judged: Sequence[Prediction]) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy and number of questions for each value of each group."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for prediction in judged:
        for group, value in prediction.groups.items():
            found[group][value].append(prediction.score)
    return {
        group: {
            value: {"accuracy": float(np.mean(scores)), "questions": len(scores)}
            for value, scores in sorted(values.items())
        }
        for group, values in sorted(found.items())
    }


def _share(values: Sequence[float | bool]) -> float:
    return float(np.mean(values)) if values else math.nan


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f}"
