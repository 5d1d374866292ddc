"""Balances prompts by tag and by level of difficulty."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

LEVELS = ("0-20 %", "20-40 %", "40-60 %", "60-80 %", "80-100 %")  # of the pass rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A prompt as balancing sees it: its key, its tags, and its pass rate in [0, 1]."""

    key: str
    tags: tuple[str, ...]
    pass_rate: float

    @property
    def level(self) -> int:
        """The index of its pass rate in LEVELS."""
        return level_of(self.pass_rate)


def level_of(pass_rate: float) -> int:
    """The index in LEVELS of a pass rate: the fifth of [0, 1] that it lies in, lower ends included."""
    return min(len(LEVELS) - 1, int(pass_rate * len(LEVELS) + 1e-9))


def cap_tags(candidates: Sequence[Candidate], *, caps: Mapping[str, int], seed: int) -> Collection[str]:
    """The keys that are kept if a tag may have at most `caps[tag]` prompts; `caps[""]` is the cap of all other tags.

    Prompts are taken from the levels of difficulty in turn, so that a capped tag keeps easy and hard ones. Within a
    level the seed decides. A prompt with several tags is kept if none of them is full.
    """
    kept: set[str] = set()
    counts: Counter[str] = Counter()
    for candidate in _in_turns(candidates, seed):
        limits = [(tag, caps.get(tag, caps.get(""))) for tag in candidate.tags]
        if all(limit is None or counts[tag] < limit for tag, limit in limits):
            kept.add(candidate.key)
            counts.update(candidate.tags)
    return kept


def cap_levels(candidates: Sequence[Candidate], *, share: float, seed: int) -> Collection[str]:
    """The keys that are kept if no level of difficulty may have more than `share` of the kept prompts.

    If there are too few levels for that, all levels are cut to the size of the smallest.
    """
    levels: dict[int, list[str]] = defaultdict(list)
    for candidate in candidates:
        levels[candidate.level].append(candidate.key)
    most = level_cap([len(keys) for keys in levels.values()], share)
    return {key for keys in levels.values() for key in sorted(keys, key=lambda key: _rank(seed, key))[:most]}


def level_cap(sizes: Sequence[int], share: float) -> int:
    """The largest c with `c <= share * sum(min(size, c))`; the smallest size if there is no such c."""
    share = max(share, 1 / len(sizes)) if sizes else 1.0
    for most in range(max(sizes, default=0), 0, -1):
        if most <= share * sum(min(size, most) for size in sizes) + 1e-9:
            return most
    return 0


def _in_turns(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    """The first candidate of each level, then the second of each, and so on."""
    ranked = sorted(candidates, key=lambda candidate: _rank(seed, candidate.key))
    turns: Counter[int] = Counter()
    order = []
    for candidate in ranked:
        order.append((turns[candidate.level], candidate.level))
        turns[candidate.level] += 1
    return [candidate for _, candidate in sorted(zip(order, ranked, strict=True), key=lambda pair: pair[0])]


def _rank(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}/{key}".encode("utf-8", "replace")).digest()
