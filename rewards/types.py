"""What flows into and out of a reward: `Task`, `Verdict`, `Score`. Imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question with its reference answer; what a data set row becomes.

    Example: `Task(id="digits/7", source="digit_sums", question="What is the result?", answer="19", images=(png,))`.
    """

    id: str
    source: str  # the data source, for metrics of each source
    question: str
    answer: str  # the reference (gold) answer
    images: tuple[bytes, ...] = ()  # encoded files (PNG, JPEG, ...), in the order in which the question shows them
    verifier: str = "math"  # a key of `rewards.verifiers.builtin.VERIFIERS`, `file.py:function` or an entry point
    choices: tuple[str, ...] = ()  # option texts of a multiple-choice question, in the order A, B, C, ...
    difficulty: float | None = None  # label in [0, 1], easy to hard; None where unknown
    solution: str | None = None  # step-by-step text that ends before the answer; only SFT reads it
    tags: tuple[str, ...] = ()  # domains such as `geometry`; `thinkvl curate` balances a prompt set by them
    system: str | None = None  # the source's system text; None: the recipe's for its verifier
    template: str | None = None  # the source's text around the question; None: as above


class VerdictKind(StrEnum):
    """What a verifier found. The first three are rewards; the last three leave the group and are counted."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    BAD_REFERENCE = "bad_reference"
    TIMEOUT = "timeout"
    CRASH = "crash"


REWARD_KINDS = frozenset({VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One verifier's finding on one response, with enough to see why."""

    kind: VerdictKind
    score: float  # in [0, 1]; 0 for every kind but `correct`, unless a verifier grants partial credit
    extracted: str | None = None  # the answer that was read out of the response
    rule: str = ""  # the rule that decided, such as "exact-rational"
    seconds: float = 0.0
    detail: str = ""  # for `crash` and `timeout`: what happened

    @property
    def is_reward(self) -> bool:
        """True where `score` may teach the policy; False where the verifier, not the answer, failed."""
        return self.kind in REWARD_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The verdict on a response and the weighted sum of all reward parts.

    `verdict` is that of the task's own verifier. `reward` is None where a term of the sum failed (`failures` tells
    which): such a response leaves its group and is never a zero reward.
    """

    verdict: Verdict
    reward: float | None
    parts: Mapping[str, float] = field(default_factory=dict)  # name of each reward -> unweighted value
    failures: Mapping[str, Verdict] = field(default_factory=dict)  # name of each reward that failed -> its verdict


class Verifier(Protocol):
    """Compares a response with a reference. Plug-ins may return a float or a dict of parts instead."""

    @property
    def blocking(self) -> bool:
        """Whether it waits for a service: the scorer then runs it in a thread."""
        ...

    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """Judge `response`; must not raise on any string."""
        ...
