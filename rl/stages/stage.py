"""What a stage is: the class behind one item of the recipe's `stages`. `configs.stage_kinds` has the table."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from configs.stage import StageConfig
from configs.stage_kinds import STAGE_KINDS
from rl.run.context import RunContext
from rollouts.model_family import VisionLanguageModel


class Stage(Protocol):
    """Trains the model that the stage before left, with checkpoints of its own. `rl.pipeline` calls it in this order.

    It is made from the run, its own part of the recipe, and the folder or hub name of the model that it starts from.
    """

    def __init__(self, context: RunContext, config: Any, model_path: str) -> None: ...

    def resume(self) -> int:
        """Go back to the newest checkpoint of an earlier process; return the steps that are done, 0 without one."""
        ...

    def run(self) -> VisionLanguageModel:
        """Train the remaining steps and return the model that the stage ends with, in evaluation mode."""
        ...

    def figures(self) -> dict[str, float]:
        """What the stage has measured itself, for its record; called after `run`."""
        ...

    def close(self) -> None:
        """End the processes that the stage started, also after a failure."""
        ...


def open_stage(context: RunContext, config: StageConfig, model_path: str) -> Stage:
    """The stage of the recipe's kind."""
    module, _, name = STAGE_KINDS[config.kind].runs.partition(":")
    make: type[Stage] = getattr(importlib.import_module(module), name)
    return make(context, config, model_path)
