"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from configs.rl import SamplingConfig
from rollouts.types import Completion, Prompt, Request

Generate = Callable[[Sequence[Request], SamplingConfig], list[list[Completion]]]


Decode = Callable[[np.ndarray], str]


def make_requests(prompts: Sequence[Prompt], *, n: int, seed: int) -> list[Request]:
    """A request for `n` samples of each prompt."""
    return [Request(prompt=p, n=n, seed=request_seed(seed, j)) for j, p in enumerate(prompts)]


def request_seed(seed: int, index: int) -> int:
    """A 64-bit seed of request `index` in the stream `seed`."""
    return int(np.random.SeedSequence([seed & (2**64 - 1), index]).generate_state(1, np.uint64)[0])
