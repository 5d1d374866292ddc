"""How old the rollouts of a step are when it trains on them, in policy versions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollouts.types import Completion


def staleness_metrics(completions: Sequence[Completion], *, version: int) -> dict[str, float]:
    """Versions between a completion's first token and `version`: mean, maximum, share of each. See docs/metrics.md."""
    if not completions:
        return {}
    lags = np.array([version - min((s.version for s in c.segments), default=version) for c in completions])
    mixed = [len({s.version for s in c.segments}) > 1 for c in completions]
    shares = {f"staleness/{lag}": float(np.mean(lags == lag)) for lag in range(int(lags.max()) + 1)}
    return {
        "staleness_mean": float(lags.mean()),
        "staleness_max": float(lags.max()),
        "staleness_mixed": float(np.mean(mixed)),
        **shares,
    }
