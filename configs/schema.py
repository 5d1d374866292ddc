"""The schema of a recipe: frozen dataclasses whose `__post_init__` holds the ranges and the cross-field rules.

They are plain dataclasses so that engines and the learner can take them where pydantic is not installed;
`configs.load` validates types and unknown keys with pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from configs.data import DataConfig
from configs.model import ModelConfig
from configs.rl import RLConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check
from configs.sft import SFTConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Evaluation: greedy, and sampled at RL's temperature (1 where there is no RL stage)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    tasks: int = 400  # held-out tasks after each stage, at most
    validation_tasks: int = 200  # tasks of each evaluation during RL, at most
    samples: int = 1  # sampled completions for each task
    max_new_tokens: int = 1024  # a completion is cut off here

    def __post_init__(self) -> None:
        for key in ("tasks", "validation_tasks", "samples", "max_new_tokens"):
            _check(getattr(self, key) > 0, key, getattr(self, key), "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run: instruct SFT, long-CoT SFT, RL, evaluation, export. A stage that is null is skipped."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    name: str  # what the run is called; without `/`
    output_dir: str  # the run's folder; a folder that holds another run is refused
    seed: int = 0  # of weights, tasks and sampling; 0 or more
    threads: int | None = None  # CPU threads of the learner; null leaves it to PyTorch
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    instruct: SFTConfig | None = None  # the first SFT stage: short, direct answers
    long_cot: SFTConfig | None = None  # the second SFT stage: a small set of step-by-step solutions
    rl: RLConfig | None = None  # the reinforcement-learning stage
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    # where metrics go beside `metrics.jsonl`: `tensorboard`, `wandb`, `trackio`, `mlflow`; see
    # [metrics](metrics.md#trackers)
    trackers: tuple[str, ...] = ("tensorboard",)
    export: bool = True  # write a Hugging Face folder with code at the end

    def __post_init__(self) -> None:
        _check(bool(self.name) and "/" not in self.name, "name", self.name, "a non-empty name without '/'")
        _check(bool(self.output_dir), "output_dir", self.output_dir, "a folder's name")
        _check(self.threads is None or self.threads > 0, "threads", self.threads, "1 or more, or left out")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        if self.rl is not None and self.model.dtype == "bfloat16":
            ranks, state = self.rl.ranks, self.rl.optimizer.state
            _check(
                ranks.compute_dtype is None,
                "rl.ranks.compute_dtype",
                ranks.compute_dtype,
                "left out where model.dtype is bfloat16 already",
            )
            _check(
                state != "8bit" or ranks.count == 1,
                "rl.optimizer.state",
                state,
                "bfloat16 or float32 where rl.ranks.count is above 1 and model.dtype is bfloat16: torchao's 8-bit "
                "moments of such weights cannot be sharded",
            )
        _check(
            any((self.instruct, self.long_cot, self.rl)), "instruct, long_cot, rl", None, "set in at least one of them"
        )
