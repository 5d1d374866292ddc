"""The micro-batches of a step, one after the other or in several threads of one process.

PyTorch's own threads share one operation, and those of a small model are too short for that. Here each thread runs
whole forward and backward passes. It sums the gradients of its micro-batches in tensors of its own; in the end the sums
are added in the order of the threads. So a number of threads gives the same bits each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import TypeVar

import torch

from rl.learner.balanced_shares import balanced_shares, packed_tokens
from rl.learner.batch import Packable, by_prompt, split_by_tokens
from rl.learner.gradient_sums import summing_dtype

LEAST_TOKENS = 512  # packed tokens that are worth a thread

Part = TypeVar("Part")
Statistics = TypeVar("Statistics")


def split_for_threads(samples: Sequence[Packable], *, budget: int, threads: int) -> list[list[Packable]]:
    """Micro-batches that keep up to `threads` threads busy; all that run at a time have at most `budget` tokens."""
    used = min(threads, sum(map(packed_tokens, by_prompt(samples))) // LEAST_TOKENS)
    if used <= 1:
        return split_by_tokens(samples, budget=budget)
    shares = balanced_shares(samples, ranks=used, budget=budget // used)
    return [part for turn in zip_longest(*shares) for part in turn if part is not None]


def add_gradients(
    parts: Sequence[Part],
    loss_of: Callable[[Part, Statistics], torch.Tensor],
    *,
    new_statistics: Callable[[], Statistics],
    leaves: Iterable[torch.Tensor | None],
    threads: int,
) -> list[Statistics]:
    """Add the gradients of the losses of all micro-batches to those of the leaves that need one.

    `loss_of(part, statistics)` adds to the statistics of the thread that calls it. Returns those of each thread.
    """
    used = min(threads, len(parts))
    if used <= 1:
        statistics = new_statistics()
        for part in parts:
            loss_of(part, statistics).backward()
        return [statistics]
    wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    every = [new_statistics() for _ in range(used)]
    own_threads = torch.get_num_threads()

    def run(thread: int) -> list[torch.Tensor | None]:
        torch.set_num_threads(1)  # of this thread's operations
        total: list[torch.Tensor | None] = [None] * len(wanted)
        for part in parts[thread::used]:
            found = torch.autograd.grad(loss_of(part, every[thread]), wanted, allow_unused=True)
            total = [_sum(*each) for each in zip(total, found, wanted, strict=True)]
        return total

    with ThreadPoolExecutor(used, thread_name_prefix="micro-batches") as pool:
        totals = list(pool.map(run, range(used)))
    torch.set_num_threads(own_threads)  # also for threads that begin later
    for leaf, *gradients in zip(wanted, *totals, strict=True):
        total = None
        for gradient in (leaf.grad, *gradients):
            total = _sum(total, gradient, leaf)
        leaf.grad = None if total is None else total.to(leaf.dtype)
    return every


def _sum(total: torch.Tensor | None, more: torch.Tensor | None, leaf: torch.Tensor) -> torch.Tensor | None:
    """`total + more` in fp32 or better and in the layout of `leaf`, into `total` where there is one."""
    if more is None:
        return total
    return torch.empty_like(leaf, dtype=summing_dtype(leaf.dtype)).copy_(more) if total is None else total.add_(more)
