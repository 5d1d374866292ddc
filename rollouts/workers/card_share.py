"""How much of a card a rollout worker takes."""

from __future__ import annotations


def worker_share(gpus: float, workers: int) -> float:
    """A whole card where there are more cards than workers, else an equal part that leaves one part to the learner."""
    return 1.0 if gpus > workers else gpus / (workers + 1)
