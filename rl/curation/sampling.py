"""Samples and judges tasks block by block; a killed command continues with the first missing block."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.scorer import Scorer
from rewards.types import REWARD_KINDS, Task, VerdictKind
from rl.curation.balance import level_of
from rl.curation.generators import Draft, Drawing, Generator
from rl.curation.inputs import digest_of
from rl.curation.sample_log import SampleLog
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.sources.scoring import thinks

BLOCK = 32  # tasks that are generated together and kept together


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCompletion:
    """One judged sample."""

    verdict: VerdictKind
    tokens: int
    finish_reason: str
    thinks: bool  # whether it holds a closed, non-empty think block
    text: str  # empty where texts are not kept

    @property
    def correct(self) -> bool:
        """Whether its answer verifies."""
        return self.verdict is VerdictKind.CORRECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The samples of a task, by its key, or the reason why there are none."""

    key: str
    reason: str | None
    samples: tuple[ScoredCompletion, ...]

    @property
    def judged(self) -> int:
        """Samples whose verifier gave a verdict."""
        return sum(sample.verdict in REWARD_KINDS for sample in self.samples)

    @property
    def correct(self) -> int:
        """Samples whose answer verifies."""
        return sum(sample.correct for sample in self.samples)

    @property
    def pass_rate(self) -> float:
        """Share of correct samples among those with a verdict; there must be at least one."""
        return self.correct / self.judged

    @property
    def level(self) -> int:
        """The index of the pass rate in LEVELS."""
        return level_of(self.pass_rate)


class Sampler:
    """Draws samples of tasks, which are given by key and read on demand.

    The samples of a task depend on the seed, its key and the sampling, and to rounding on the tasks in its block.
    """

    def __init__(self, generator: Generator, scorer: Scorer, log: SampleLog, *, seed: int, keep_texts: bool) -> None:
        self._generator, self._scorer, self._log = generator, scorer, log
        self._seed, self._keep_texts = seed, keep_texts

    def draw(
        self, stage: str, keys: Sequence[str], read: Callable[[str], Task], drawing: Drawing
    ) -> Iterator[list[Sampled]]:
        """Yield the samples of each block of tasks in order, from the log if it has them."""
        for start in range(0, len(keys), BLOCK):
            block = keys[start : start + BLOCK]
            name = f"{stage}/{digest_of(block)}"
            if name not in self._log:
                self._log.append(name, self._sample(stage, block, [read(key) for key in block], drawing))
            yield [_sampled(row) for row in self._log.read(name)]

    def _sample(self, stage: str, keys: Sequence[str], tasks: Sequence[Task], drawing: Drawing) -> list[dict[str, Any]]:
        stream = request_seed(self._seed, zlib.crc32(stage.encode()))
        seeds = [request_seed(stream, int(key[:16], 16)) for key in keys]
        groups = self._generator.generate(tasks, seeds, drawing)
        pairs = [(draft, task) for group, task in zip(groups, tasks, strict=True) for draft in _drafts(group)]
        scores = iter(self._scorer.score([draft.text for draft, _ in pairs], [task for _, task in pairs]))
        return [
            {
                "key": key,
                "reason": group if isinstance(group, str) else None,
                "samples": [self._row(draft, next(scores).verdict.kind) for draft in _drafts(group)],
            }
            for key, group in zip(keys, groups, strict=True)
        ]

    def _row(self, draft: Draft, verdict: VerdictKind) -> dict[str, Any]:
        return {
            "verdict": verdict.value,
            "tokens": draft.tokens,
            "finish": draft.finish_reason,
            "thinks": thinks(draft.text),
            "text": draft.text if self._keep_texts else "",
        }


def _drafts(group: list[Draft] | str) -> list[Draft]:
    return [] if isinstance(group, str) else group


def _sampled(row: dict[str, Any]) -> Sampled:
    samples = (
        ScoredCompletion(
            verdict=VerdictKind(sample["verdict"]),
            tokens=sample["tokens"],
            finish_reason=sample["finish"],
            thinks=sample["thinks"],
            text=sample["text"],
        )
        for sample in row["samples"]
    )
    return Sampled(key=row["key"], reason=row["reason"], samples=tuple(samples))
