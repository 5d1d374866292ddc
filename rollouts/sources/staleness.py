"""TODO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollouts.types import ScoredRollout


def staleness_metrics(scored: Sequence[Sequence[ScoredRollout]], *, version: int) -> dict[str, float]:
    """How many versions ago each answer's first token was written: mean, largest, share of each lag. See
    docs/metrics.md.
    """
    segments = [member.rollout.completion.segments for group in scored for member in group]
    if not segments:
        return {}
    lags = np.array([version - min((s.version for s in own), default=version) for own in segments])
    mixed = [len({s.version for s in own}) > 1 for own in segments]
    shares = {f"staleness/{lag}": float(np.mean(lags == lag)) for lag in range(int(lags.max()) + 1)}
    return {
        "staleness_mean": float(lags.mean()),
        "staleness_max": float(lags.max()),
        "staleness_mixed": float(np.mean(mixed)),
        **shares,
    }
