"""Alarms of stages that sample nothing: read from their metrics, by the rules that need no rollouts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rl.alarms.table import ALARMS
from rl.alarms.watch import AlarmWatch

# `thinkvl replay` has the updates of RL alone.
_ADVICE = (
    "lower optimizer.learning_rate or lengthen optimizer.warmup_steps; the loss by source shows whether one source is "
    "the cause"
)
_RULES = tuple(replace(alarm, advice=_ADVICE) for alarm in ALARMS if alarm.name == "not_finite")


def supervised_alarms(stage: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines as `alarms.jsonl` has them; none for a stage of RL, which writes its own. A null number was not finite."""
    if any("rollouts" in row for row in rows):
        return []
    watch, events = AlarmWatch(_RULES), []
    for row in rows:
        numbers = {name: math.nan if row[name] is None else row[name] for name in row if name not in ("stage", "time")}
        watch.observe(int(row["step"]), (), numbers)
        events += watch.judge()
    return [{"stage": stage, **asdict(event), "rollouts": []} for event in events]
