"""How the tables of metrics are written and read; `rl/metrics_table.py` and `rl/throughput_table.py` hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTRY = re.compile(r"([\w/]+) \(([^)]+)\): (.*?\.)(?: Healthy: (.*))?")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Example: `Metric("accuracy", "share", "Rollouts whose verdict is `correct`.", "rises")`."""

    name: str
    unit: str
    meaning: str
    healthy: str | None


def metrics(text: str) -> tuple[Metric, ...]:
    """Read `name (unit): meaning. Healthy: what is healthy`; a longer entry goes on in indented lines."""
    entries = text.strip().replace("\n  ", " ").splitlines()
    matches = [_ENTRY.fullmatch(entry) for entry in entries]
    assert all(matches), f"no entry of a metric: {entries[matches.index(None)]!r}"
    return tuple(Metric(*match.groups()) for match in matches if match)
