"""The longest sequence that the model of each stage reads: a `long_context` stage changes it for those after it."""

from __future__ import annotations

from dataclasses import replace

from configs.data import DataConfig
from configs.errors import UserError
from configs.long_context import LongContextConfig
from configs.schema import RunConfig


def stage_contexts(config: RunConfig, base_context: int) -> dict[str, int]:
    """The context of each stage's model in tokens, by the stage's name. `base_context` is that of the initial weights.

    Raises UserError where a `long_context` stage would make it shorter.
    """
    contexts: dict[str, int] = {}
    current = base_context
    for stage in config.stages:
        if isinstance(stage, LongContextConfig):
            if stage.context < current:
                raise UserError(
                    f"{stage.name}.context = {stage.context}: must be {current} or more, the context of the model that "
                    "enters the stage"
                )
            current = stage.context
        contexts[stage.name] = current
    return contexts


def within_context(data: DataConfig, context: int) -> DataConfig:
    """The data of a stage whose model reads at most `context` tokens: no prompt may be longer."""
    return replace(data, max_prompt_tokens=min(data.max_prompt_tokens, context))
