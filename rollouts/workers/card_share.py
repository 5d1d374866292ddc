"""How many cards, or which part of one, a rollout worker takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def cards_of_worker(engine: object, options: Mapping[str, Any]) -> int:
    """Cards that one vLLM is split over: `tensor_parallel_size` times `pipeline_parallel_size`; 1 for other engines."""
    if engine != "vllm":
        return 1
    return int(options.get("tensor_parallel_size", 1)) * int(options.get("pipeline_parallel_size", 1))


def worker_share(gpus: float, workers: int, *, cards: int = 1) -> float:
    """Whole cards where a worker needs several, or where there are more cards than workers.

    Otherwise workers share cards: each has an equal part, and one part is left to the learner.
    """
    if cards > 1 and gpus:
        return float(cards)
    return 1.0 if gpus > workers else gpus / (workers + 1)
