"""The built-in verifiers: the one table from a name in `Task.verifier` to what judges it."""

from __future__ import annotations

from collections.abc import Mapping

from configs.rewards import JudgeConfig
from rewards.plugins.interface import PluginError
from rewards.sandbox.pool import Worker
from rewards.types import Verifier
from rewards.verifiers import options
from rewards.verifiers.accepted_answers import AnyAccepted
from rewards.verifiers.base import BuiltInVerifier
from rewards.verifiers.benchmark_rules import ContainsVerifier, MathVisionVerifier, MathVistaVerifier, RelaxedVerifier
from rewards.verifiers.choice import ChoiceVerifier
from rewards.verifiers.json_answer import JsonVerifier
from rewards.verifiers.math import MathVerifier
from rewards.verifiers.mmmu_open import MmmuOpenVerifier
from rewards.verifiers.numeric import CountVerifier, NumericVerifier
from rewards.verifiers.ocr import OcrVerifier
from rewards.verifiers.regions import BoxVerifier, PointVerifier
from rewards.verifiers.text import ExactVerifier, TextVerifier
from rewards.verifiers.yesno import YesNoVerifier

JUDGE = "judge"  # not in the table: it exists where a recipe has the section `rl.judge`


VERIFIERS: Mapping[str, type[BuiltInVerifier]] = {
    "math": MathVerifier,
    "choice": ChoiceVerifier,
    "text": TextVerifier,
    "exact": ExactVerifier,
    "yes_no": YesNoVerifier,
    "count": CountVerifier,
    "numeric": NumericVerifier,
    "ocr": OcrVerifier,
    "box": BoxVerifier,
    "point": PointVerifier,
    "json": JsonVerifier,
    # The rules of public benchmarks, which measure and do not train.
    "relaxed": RelaxedVerifier,
    "contains": ContainsVerifier,
    "mathvista": MathVistaVerifier,
    "mathvision": MathVisionVerifier,
    "mmmu_open": MmmuOpenVerifier,
}
"""Name to class. A class's keyword-only arguments are the options that may stand behind the name: `numeric(rel=0.01)`.
"""


def is_built_in(spec: str) -> bool:
    """True for the name of a built-in verifier, with or without options."""
    return options.base_name(spec) in (*VERIFIERS, JUDGE)


def build_verifier(spec: str, worker: Worker, *, judge: JudgeConfig | None = None) -> Verifier:
    """The built-in verifier that `spec` names. Raises PluginError for unknown names and options that do not fit."""
    if spec.strip() == JUDGE:
        if judge is None:
            raise PluginError(
                "'judge' is off: it sends answers to a language model. Turn it on in the recipe's stage `rl`: "
                "`judge: {url: https://HOST/v1, model: NAME, key_env: VARIABLE}`"
            )
        from rewards.verifiers.judge import JudgeVerifier  # brings HTTP and TLS along

        return JudgeVerifier(judge)
    verifier = VERIFIERS.get(options.base_name(spec))
    made = options.make(VERIFIERS, spec, *((worker,) if verifier is not None and verifier.needs_worker else ()))
    return made if made.lists_are_answers else AnyAccepted(made)
