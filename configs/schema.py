"""The schema of a recipe: frozen dataclasses whose `__post_init__` holds the ranges and the cross-field rules.

They are plain dataclasses so that engines and the learner can take them where pydantic is not installed;
`configs.load` validates types and unknown keys with pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.rl import RLConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One data source of a mixture.

    `use` is a built-in (`digit_sums`, `easy_vqa`), a local `.jsonl`/`.parquet` file, or a hub data set's name;
    `columns` maps our field names (images, question, answer, verifier, choices, difficulty, solution, id) to the
    file's; `options` go to a built-in.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    # a built-in (`digit_sums`, `easy_vqa`), a `.jsonl` or `.parquet` file, a task file (`file.py:function`), or a hub
    # data set
    use: str
    split: str = "train"  # of a hub data set; the built-ins have `train` and `held_out`
    weight: float = 1.0  # share of the mixture, relative to the other sources; greater than 0
    limit: int | None = None  # at most so many tasks
    # our field to the file's column, such as `{images: picture}`; not for the built-ins
    columns: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # of a built-in or a task file, such as `{scans: [3]}`

    def __post_init__(self) -> None:
        _check(self.weight > 0, "weight", self.weight, "greater than 0")
        _check(self.limit is None or self.limit > 0, "limit", self.limit, "1 or more, or left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The training mixture, the tasks that choose the best checkpoint, the held-out tasks, and the longest prompt.

    Where `validation` is empty, evaluation on a schedule uses the held-out tasks, and the choice of the best
    checkpoint is then made on them.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    train: tuple[SourceConfig, ...] = (SourceConfig(use="digit_sums"),)  # the training mixture; at least one source
    validation: tuple[SourceConfig, ...] = ()  # tasks that choose RL's best checkpoint; empty: the held-out tasks do
    # tasks that each stage is evaluated on; at least one source
    held_out: tuple[SourceConfig, ...] = (SourceConfig(use="digit_sums", split="held_out"),)
    max_prompt_tokens: int = 4096  # longer prompts are left out and counted
    verifiers: tuple[str, ...] = ()  # plug-ins that rows may name as their verifier; built-in ones need no entry

    def __post_init__(self) -> None:
        _check(len(self.train) > 0, "train", self.train, "at least one source")
        _check(len(self.held_out) > 0, "held_out", self.held_out, "at least one source")
        _check(self.max_prompt_tokens > 0, "max_prompt_tokens", self.max_prompt_tokens, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTConfig:
    """One supervised stage (Kimi-VL §2.4): `thinking_share` of the examples carry a step-by-step solution."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    steps: int  # optimizer steps
    batch_size: int = 32  # examples in a step
    micro_batches: int = 1  # forward passes in a step; more of them need less memory. A divisor of `batch_size`
    thinking_share: float = 0.0  # share of the examples that carry a step-by-step solution; 0 to 1
    save_every: int = 500  # steps between checkpoints
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        _check(self.steps > 0, "steps", self.steps, "1 or more")
        _check(self.batch_size > 0, "batch_size", self.batch_size, "1 or more")
        _check(self.save_every > 0, "save_every", self.save_every, "1 or more")
        _check(
            self.micro_batches > 0 and self.batch_size % self.micro_batches == 0,
            "micro_batches",
            self.micro_batches,
            f"a divisor of batch_size = {self.batch_size}",
        )
        _check(0 <= self.thinking_share <= 1, "thinking_share", self.thinking_share, "between 0 and 1")


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
