"""What a run is trained and evaluated on: sources of tasks, and the mixture of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from configs.prompt import PromptConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One data source of a mixture.

    `use` is a built-in (`digit_sums`, ...), a local `.jsonl`/`.parquet` file, or a hub data set's name;
    `columns` maps our field names (images, video, question, answer, verifier, choices, difficulty, solution,
    tags, id) to the file's; `options` go to a built-in.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    # a built-in (`digit_sums`, ...), a `.jsonl` or `.parquet` file, a task file (`file.py:function`), or a hub data set
    use: str
    split: str = "train"  # of a hub data set or a built-in; the built-ins have `train` and `held_out`
    weight: float = 1.0  # share of the mixture, relative to the other sources; greater than 0
    # the weight at the end of a supervised stage, reached in a straight line; null: `weight`
    final_weight: float | None = None
    limit: int | None = None  # at most so many tasks
    # our field to the file's column, such as `{images: picture}`; not for the built-ins
    columns: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # of a built-in or a task file, such as `{scans: [3]}`
    # whether its tasks keep their worked solutions; false: a supervised stage trains their bare answers
    solutions: bool = True
    prompt: PromptConfig | None = None  # template of its questions; before `prompt_by_verifier` and `data.prompt`

    def __post_init__(self) -> None:
        _check(self.weight > 0, "weight", self.weight, "greater than 0")
        last = self.final_weight
        _check(last is None or last > 0, "final_weight", last, "greater than 0, or left out")
        _check(self.limit is None or self.limit > 0, "limit", self.limit, "1 or more, or left out")

    @property
    def last_weight(self) -> float:
        """The weight at the end of a stage."""
        return self.weight if self.final_weight is None else self.final_weight


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The training mixture, the tasks that choose the best checkpoint, the held-out tasks, and the longest prompt.

    Where `validation` is empty, a part of `train` is set apart, so that the held-out tasks never choose the checkpoint
    that they measure.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    train: tuple[SourceConfig, ...] = (SourceConfig(use="digit_sums"),)  # the training mixture; at least one source
    # tasks that choose RL's best checkpoint; empty: 5 % of the rows of `train`, and new tasks of its endless sources;
    # no stage trains on them
    validation: tuple[SourceConfig, ...] = ()
    # tasks and documents that each stage is evaluated on; at least one source. Where all have documents, a `pretrain`
    # or `long_context` stage reports their perplexity and answers no tasks
    held_out: tuple[SourceConfig, ...] = (SourceConfig(use="digit_sums", split="held_out"),)
    # longer prompts are left out and counted; one image of Kimi-VL-A3B-Thinking-2506 has up to 4,213 tokens
    max_prompt_tokens: int = 8192
    prompt: PromptConfig = field(default_factory=PromptConfig)  # template of all questions
    # templates by the name of a verifier, such as `{math: {template: ...}}`; goes before `prompt`
    prompt_by_verifier: dict[str, PromptConfig] = field(default_factory=dict)
    verifiers: tuple[str, ...] = ()  # plug-ins that rows may name as their verifier; built-in ones need no entry

    def __post_init__(self) -> None:
        _check(len(self.train) > 0, "train", self.train, "at least one source")
        _check(len(self.held_out) > 0, "held_out", self.held_out, "at least one source")
        _check(self.max_prompt_tokens > 0, "max_prompt_tokens", self.max_prompt_tokens, "1 or more")


def recipe_verifiers(*all_data: DataConfig) -> tuple[str, ...]:
    """The verifiers that the recipe itself names: `data.verifiers`, and the option `verifier` of a source."""
    sources = [source for data in all_data for source in (*data.train, *data.validation, *data.held_out)]
    named = [source.options.get("verifier") for source in sources]
    listed = [name for data in all_data for name in data.verifiers]
    return (*listed, *(name for name in named if isinstance(name, str)))


def has_prompt(data: DataConfig) -> bool:
    """Whether the recipe has a system text or a template anywhere."""
    sources = (*data.train, *data.validation, *data.held_out)
    prompts = (data.prompt, *data.prompt_by_verifier.values(), *(source.prompt for source in sources))
    return any(prompt not in (None, PromptConfig()) for prompt in prompts)
