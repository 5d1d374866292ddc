"""What a built-in verifier is: a class, with the cases that `thinkvl audit` tries on it beside those of all."""

from __future__ import annotations

import abc
import time

from rewards.extraction import Extraction, extract_answer
from rewards.types import Task, Verdict
from rewards.verifiers.verdicts import Found


class BuiltInVerifier(abc.ABC):
    """One class, and one line in `rewards.verifiers.builtin`. Keyword-only arguments are the options of its name."""

    blocking = False  # whether it waits for a service: the scorer then runs it in a thread
    needs_worker = False  # whether its first argument is the worker process for algebra, which starts when first used
    lists_are_answers = False  # whether a JSON list is one answer; elsewhere it is a list of accepted answers

    @abc.abstractmethod
    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """Judge `response`; must not raise on any string."""

    @staticmethod
    def rewritings(task: Task) -> dict[str, str]:
        """Names and texts of responses that are as right as the reference, and that this verifier must accept."""
        del task
        return {}

    @staticmethod
    def cheats(task: Task) -> dict[str, str]:
        """Names and texts of responses that commit to nothing or to everything, and must earn nothing."""
        del task
        return {}


class ExtractingVerifier(BuiltInVerifier):
    """A verifier that extracts the answer from the response, then compares it with the reference."""

    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """Judge `response`. Never raises."""
        start = time.perf_counter()
        extraction = self.extract(response)
        return self.judge(extraction, reference, response=response, task=task).verdict(start, extraction.answer)

    def extract(self, response: str) -> Extraction:
        """The answer that `response` commits to: by default one line, as in `rewards.extraction`."""
        return extract_answer(response)

    @abc.abstractmethod
    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer, None where there is none, with `reference`."""
