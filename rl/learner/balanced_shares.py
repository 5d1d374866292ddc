"""The samples of a step in shares of about equal size: for the ranks of a learner, or for threads of one process."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from rl.learner.batch import Packable, by_prompt, split_by_tokens
from rl.types import PromptCompletion, SampleHeader


def balanced_shares(samples: Sequence[Packable], *, ranks: int, budget: int) -> list[list[list[Packable]]]:
    """The micro-batches of each rank, `[rank][micro-batch][sample]`, the largest first.

    A micro-batch has at most `budget` packed tokens, but at least one sample. Ranks get about the same number of packed
    tokens: groups go, longest first, to the rank with the fewest so far. A group larger than a rank's fair share is
    split, and its prompt repeated.
    """
    groups = by_prompt(samples)
    fair = -(-sum(map(packed_tokens, groups)) // ranks)
    pieces = [piece for group in groups for piece in _cut(group, fair)]
    loads = [(0, rank) for rank in range(ranks)]
    shares: list[list[Packable]] = [[] for _ in range(ranks)]
    for piece in sorted(pieces, key=packed_tokens, reverse=True):
        load, rank = heapq.heappop(loads)
        shares[rank].extend(piece)
        heapq.heappush(loads, (load + packed_tokens(piece), rank))
    return [sorted(split_by_tokens(share, budget=budget), key=packed_tokens, reverse=True) for share in shares]


def packed_tokens(samples: Sequence[PromptCompletion | SampleHeader]) -> int:
    """Tokens of the packed row: each prompt once, and each response without its last token."""
    prompts = {s.prompt.id: s.prompt.tokens for s in samples}
    return sum(prompts.values()) + sum(s.response_tokens - 1 for s in samples)


def _cut(group: list[Packable], fair: int) -> list[list[Packable]]:
    """Split a group into parts of about equal size, as few as a limit of `fair` packed tokens allows."""
    count = min(len(group), -(-packed_tokens(group) // fair))
    loads = [0] * count
    parts: list[list[Packable]] = [[] for _ in range(count)]
    for sample in sorted(group, key=len, reverse=True):
        least = loads.index(min(loads))
        parts[least].append(sample)
        loads[least] += sample.response_tokens
    return parts
