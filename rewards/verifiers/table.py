"""The built-in verifiers: the one table from a name in `Task.verifier` to what judges it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from configs.rewards import JudgeConfig
from rewards.plugins.interface import PluginError
from rewards.sandbox.pool import Worker
from rewards.types import Verifier
from rewards.verifiers import options
from rewards.verifiers.accepted import AnyAccepted
from rewards.verifiers.choice import ChoiceVerifier
from rewards.verifiers.json_answer import JsonVerifier
from rewards.verifiers.math import MathVerifier
from rewards.verifiers.numeric import CountVerifier, NumericVerifier
from rewards.verifiers.ocr import OcrVerifier
from rewards.verifiers.regions import BoxVerifier, PointVerifier
from rewards.verifiers.text import ExactVerifier, TextVerifier
from rewards.verifiers.yesno import YesNoVerifier

JUDGE = "judge"  # not in the table: it exists where a recipe has the section `rl.judge`


def _alone(make: Callable[..., Verifier]) -> Callable[..., Verifier]:
    """`make` for the table below: it has no use for the worker process. Its options stay visible."""

    @functools.wraps(make, updated=())
    def made(_: Worker, **given: Any) -> Verifier:
        return make(**given)

    return made


VERIFIERS: Mapping[str, Callable[..., Verifier]] = {
    "math": MathVerifier,
    "choice": ChoiceVerifier,
    "text": _alone(TextVerifier),
    "exact": _alone(ExactVerifier),
    "yes_no": _alone(YesNoVerifier),
    "count": _alone(CountVerifier),
    "numeric": _alone(NumericVerifier),
    "ocr": _alone(OcrVerifier),
    "box": _alone(BoxVerifier),
    "point": _alone(PointVerifier),
    "json": _alone(JsonVerifier),
}
"""Name to a function that makes the verifier; it takes the worker process for algebra, which starts when first used.

Its keyword-only parameters are the options that may stand behind the name: `numeric(rel=0.01)`.
"""


_LISTS_ARE_ANSWERS = {"json", "box", "point"}  # elsewhere a JSON list of texts is a list of accepted answers


def is_built_in(spec: str) -> bool:
    """True for the name of a built-in verifier, with or without options."""
    return options.base_name(spec) in (*VERIFIERS, JUDGE)


def build_verifier(spec: str, worker: Worker, *, judge: JudgeConfig | None = None) -> Verifier:
    """The built-in verifier that `spec` names. Raises PluginError for unknown names and options that do not fit."""
    if spec.strip() == JUDGE:
        if judge is None:
            raise PluginError(
                "'judge' is off: it sends answers to a language model. Turn it on in the recipe, "
                "`rl: {judge: {url: https://HOST/v1, model: NAME, key_env: VARIABLE}}`"
            )
        from rewards.verifiers.judge import JudgeVerifier  # brings HTTP and TLS along

        return JudgeVerifier(judge)
    made = options.make(VERIFIERS, spec, worker)
    return made if options.base_name(spec) in _LISTS_ARE_ANSWERS else AnyAccepted(made)
