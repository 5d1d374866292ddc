"""Opens the input of the commands: the tasks of a file or recipe, the evaluation tasks, and the prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from configs.data import DataConfig, SourceConfig, has_prompt, recipe_verifiers
from configs.errors import UserError
from configs.load import load_recipe
from configs.rl import RLConfig
from configs.schema import RunConfig
from rewards.scorer import Scorer
from rewards.types import Task
from rl.cli.open_model import ModelPlace
from rl.run.evaluate import HELD_OUT_SEED
from rl.run.model_prompt import read_prompt
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.source import BUILT_IN

ENDLESS = 1_000  # tasks of an endless source, where no limit is given


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """The options that name the input data."""

    data: str  # a recipe, or what `use` of a recipe may be
    overrides: Sequence[str] = ()  # of the recipe
    split: str | None = None
    limit: int | None = None  # tasks of each source
    columns: Sequence[str] = ()  # OURS=THEIRS
    against: Sequence[str] = ()  # evaluation sets: recipes, or sources as NAME or NAME@SPLIT
    allowed: Sequence[str] = ()  # plug-ins that rows may name as their verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The data of a command and its recipe: the user's, or else that of the model's run."""

    data: DataConfig
    recipe: RunConfig | None  # that DATA names
    run: RunConfig | None  # that made the model

    @property
    def rl(self) -> RLConfig | None:
        """The stage whose limits and engine are the defaults of the command."""
        return next((config.last_rl for config in (self.recipe, self.run) if config and config.last_rl), None)

    @property
    def dtype(self) -> str | None:
        """The dtype of the weights in the recipe."""
        return next((config.model.dtype for config in (self.recipe, self.run) if config), None)

    def scorer(self, allowed: Sequence[str]) -> Scorer:
        """A scorer with verifiers only. Rows may name the plug-ins that the user or the user's recipe allows."""
        named = recipe_verifiers(*self.recipe.all_data) if self.recipe else ()
        judge = self.recipe.last_rl.judge if self.recipe and self.recipe.last_rl else None
        return Scorer((), base=Path.cwd(), judge=judge, allowed=(*named, *allowed))


def open_inputs(options: DataOptions, place: ModelPlace | None) -> Inputs:
    """The data that the options name. Prompts are the recipe's, or else those the model was trained with.

    Raises UserError or ConfigError.
    """
    run = load_recipe(place.run / "recipe.yaml") if place and place.run else None
    if _is_recipe(options.data):
        if options.split or options.columns:
            raise UserError(
                f"{options.data}: a recipe names its own splits and columns; leave out --split and --column"
            )
        recipe = load_recipe(options.data, options.overrides)
        data, tokens = recipe.data, recipe.data.max_prompt_tokens
    else:
        if options.overrides:
            raise UserError(f"{' '.join(options.overrides)}: only a recipe takes changes, and {options.data} is none")
        source = SourceConfig(use=options.data, split=options.split or "train", columns=_columns(options.columns))
        recipe, data = None, DataConfig(train=(source,))
        tokens = run.data_of(run.stages[-1]).max_prompt_tokens if run else data.max_prompt_tokens
    if place and not has_prompt(data):
        data = replace(data, prompt=read_prompt(place.path, place.run))
    return Inputs(data=replace(data, max_prompt_tokens=tokens), recipe=recipe, run=run)


class TaskSet:
    """The tasks of some sources, read on access.

    `limit` is per source; by default a source gives all its tasks, and an endless source `endless` tasks.
    """

    def __init__(
        self, sources: Sequence[SourceConfig], *, seed: int, limit: int | None = None, endless: int = ENDLESS
    ) -> None:
        self._mixture = TaskMixture(sources, seed=seed, base=Path.cwd())
        self.report = self._mixture.report
        self.places = [
            (number, position)
            for number, source in enumerate(self._mixture.sources)
            for position in range(min(len(source), limit or (endless if source.endless else len(source))))
        ]

    def at(self, place: tuple[int, int]) -> Task:
        """The task at `place`, one of `places`."""
        return self._mixture.at(place)

    def __iter__(self) -> Iterator[Task]:
        return (self.at(place) for place in self.places)


def evaluation_sets(options: DataOptions, inputs: Inputs) -> list[TaskSet]:
    """The evaluation and validation tasks of the recipe, and everything that `--against` names.

    An endless source gives as many tasks as the recipe evaluates on.
    """
    recipes = [inputs.recipe, *(load_recipe(name) for name in options.against if _is_recipe(name))]
    found = []
    for recipe in (recipe for recipe in recipes if recipe is not None):
        sources: list[SourceConfig] = []
        for data in recipe.all_data:
            sources += [source for source in (*data.held_out, *data.validation) if source not in sources]
        found += [TaskSet([source], seed=HELD_OUT_SEED, endless=recipe.evaluation.tasks) for source in sources]
    for name in (name for name in options.against if not _is_recipe(name)):
        use, _, split = name.partition("@")
        split = split or ("held_out" if use in BUILT_IN else "train")
        found.append(TaskSet([SourceConfig(use=use, split=split)], seed=HELD_OUT_SEED))
    return found


def task_key(task: Task) -> str:
    """A hash of everything that a verdict depends on: prompt, images, reference, verifier."""
    digest = hashlib.sha256()
    parts = (task.question, task.answer, task.verifier, task.system or "", task.template or "", *task.choices)
    for part in (*(part.encode("utf-8", "replace") for part in parts), *task.images):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def digest_of(keys: Sequence[str]) -> str:
    """A hash of task keys in their order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]


def _is_recipe(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml")


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `tags=domain` into a mapping. Raises UserError."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise UserError(f"--column {pair}: must be OURS=THEIRS, such as tags=domain")
    return {ours: theirs for ours, _, theirs in (pair.partition("=") for pair in pairs)}
