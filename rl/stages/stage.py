"""What a stage is: the class behind one item of the recipe's `stages`. `configs.stage_kinds` has the table.

`train_stage` runs one to its end, also where a rank of its learner dies.
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from configs.rl import RLConfig
from configs.stage import StageConfig
from configs.stage_kinds import STAGE_KINDS
from configs.supervised import SupervisedConfig
from rl.distributed.learner_group import LostRank
from rl.run.context import RunContext
from rl.run.progress import working
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedStage:
    """What a stage has come to."""

    model: VisionLanguageModel
    figures: dict[str, float]
    resumed: bool  # from a checkpoint


def train_stage(context: RunContext, config: StageConfig, model_path: str) -> TrainedStage:
    """Run a stage from its newest checkpoint to its end.

    If a rank of the learner dies, the stage is closed and opened again: it goes on as the same command would after a
    kill, with the same result. Raises LostRank when that has happened more than `ranks.restarts` times.
    """
    restarts = config.ranks.restarts if isinstance(config, RLConfig | SupervisedConfig) else 0
    done = 0
    while True:
        torch.manual_seed(context.seed(config))  # whatever ran before in this process
        try:
            with ExitStack() as stack:
                with working(context.console, f"{config.name}: loading the model"):
                    stage = stack.enter_context(closing(open_stage(context, config, model_path)))
                    if context.config.generates(config):
                        context.workers.start()  # they load while the stage trains
                    resumed = stage.resume() > 0
                return TrainedStage(model=stage.run(), figures=stage.figures(), resumed=resumed)
        except LostRank as error:
            if done == restarts:
                raise
            done += 1
            context.console.print(
                f"learner rank {error.rank} of {error.count} died; {config.name} goes back to its newest checkpoint "
                f"with new ranks (restart {done} of at most {restarts}, {config.name}.ranks.restarts)"
            )
