"""Text mathematics from the generators of the package `reasoning-gym`, with exact answers and worked solutions."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.types import Task
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.packages import files_contents, package_folder
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.splits import Split, check_option, check_split, in_share
from rollouts.tasks.worked_math import SOLUTIONS

HELD_OUT_SHARE = 0.1  # of all questions
_SIZE = 2**31 - 1  # indices of a generator
_TRIES = 1_000  # questions drawn for one of the right split


class TextMath:
    """An endless sequence of problems; those of `train` and `held_out` are disjoint.

    `generators` are names of `reasoning-gym`, as a list or as a mapping to weights; `parameters` are theirs, such as
    `{chain_sum: {max_digits: 2}}`. Raises DataSetError for a package that is missing or an option out of range.
    """

    name = "text_math"
    endless = True

    def __init__(
        self,
        split: Split = "train",
        *,
        generators: Sequence[str] | Mapping[str, float] = tuple(SOLUTIONS),
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        check_split(self.name, split)
        weights = _weights(generators)
        self.split, self.report = split, SkipReport()
        self._names, self._weights = tuple(weights), tuple(weights.values())
        self._problems = _open(self._names, parameters or {})
        folder = package_folder(self.name, "reasoning_gym", "reasoning-gym")
        self.contents = files_contents(folder.rglob("*.py"))  # another version makes other problems
        options = json.dumps([weights, parameters or {}], sort_keys=True, default=str)
        self._key = f"text_math/{split}/{hashlib.sha256(options.encode()).hexdigest()[:6]}"

    def __len__(self) -> int:
        """How many indices there are: as good as endless."""
        return 2**31

    def task(self, index: int, seed: int) -> Task:
        """Make problem `index` of the sequence that `seed` starts; always the same one, wherever it is made."""
        identity = f"{self._key}/{seed}/{index}"
        rng = random.Random(identity)
        generator = rng.choices(self._names, self._weights)[0]
        problem = self._problem(generator, rng)
        solve = SOLUTIONS[generator]
        return Task(
            id=identity,
            source=self.name,
            question=problem["question"].strip(),
            answer=str(problem["answer"]),
            verifier="math",
            solution=solve(problem["metadata"]) if solve is not None else None,
            tags=(generator,),
        )

    def _problem(self, generator: str, rng: random.Random) -> Mapping[str, Any]:
        """Draw until a question belongs to the split. Raises DataSetError where the parameters leave none."""
        for _ in range(_TRIES):
            problem = self._problems[generator][rng.randrange(_SIZE)]
            if in_share(problem["question"], HELD_OUT_SHARE) == (self.split == "held_out"):
                return problem
        raise DataSetError(f"text_math: {generator} has no question for split {self.split}: widen its parameters")


def _weights(generators: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """The option `generators` as name -> weight. Raises DataSetError."""
    listed = [generators] if isinstance(generators, str) else generators
    weights = dict(listed) if isinstance(listed, Mapping) else dict.fromkeys(listed, 1.0)
    for name in weights:
        check_option("text_math", "generators", name, tuple(SOLUTIONS))
    good = all(isinstance(weight, int | float) and weight >= 0 for weight in weights.values())
    if not good or sum(weights.values()) <= 0:
        raise DataSetError(f"text_math: generators = {generators!r}: weights must be 0 or more, and one positive")
    return weights


def _open(names: Sequence[str], parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The generators by name. Raises DataSetError."""
    package_folder("text_math", "reasoning_gym", "reasoning-gym")
    for name in parameters:
        check_option("text_math", "parameters", name, names)
    create = importlib.import_module("reasoning_gym").create_dataset
    try:
        return {name: create(name, seed=0, size=_SIZE, **parameters.get(name, {})) for name in names}
    except (AssertionError, TypeError, ValueError) as error:
        raise DataSetError(f"text_math: parameters = {dict(parameters)!r}: {error}") from error
