"""The built-in verifiers: the one table from a name in `Task.verifier` to what judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rewards.choice import ChoiceVerifier
from rewards.math import MathVerifier
from rewards.pool import Worker
from rewards.text import TextVerifier
from rewards.types import Verifier


def _text(_: Worker) -> Verifier:
    return TextVerifier()


VERIFIERS: Mapping[str, Callable[[Worker], Verifier]] = {
    "math": MathVerifier,
    "choice": ChoiceVerifier,
    "text": _text,
}
"""Name to a function that makes the verifier; it takes the worker process for algebra, which starts when first used."""
