"""The schema of a recipe: frozen dataclasses whose `__post_init__` holds the ranges and the cross-field rules.

They are plain dataclasses so that engines and the learner can take them where pydantic is not installed;
`configs.load` validates types and unknown keys with pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from configs.data import DataConfig
from configs.long2short import LongToShortConfig
from configs.long_context import LongContextConfig
from configs.model import ModelConfig
from configs.rl import RLConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check
from configs.stage import StageConfig
from configs.stage_kinds import ByKind
from configs.supervised import SupervisedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Evaluation: greedy, and sampled at RL's temperature (1 where there is no RL stage)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    # held-out tasks after each stage, at most; 0: none, and a run of supervised stages then starts no rollout workers
    tasks: int = 400
    validation_tasks: int = 200  # tasks of each evaluation during RL, at most
    samples: int = 1  # sampled completions for each task
    max_new_tokens: int = 1024  # a completion is cut off here

    def __post_init__(self) -> None:
        _check(self.tasks >= 0, "tasks", self.tasks, "0 or more")
        for key in ("validation_tasks", "samples", "max_new_tokens"):
            _check(getattr(self, key) > 0, key, getattr(self, key), "1 or more")


_FOLDERS = {"base", "export", "failures", "tensorboard", "wandb", "trackio", "mlruns"}  # in a run's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run: its stages in their order, evaluation after each, export."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    name: str  # what the run is called; without `/`
    output_dir: str  # the run's folder; a folder that holds another run is refused
    # a URL of fsspec, such as `s3://bucket/mine`: the run is copied there after each checkpoint and stage, and goes on
    # from there where `output_dir` is empty
    mirror: str | None = None
    seed: int = 0  # of weights, tasks and sampling; from 0 to 2^63 - 1
    threads: int | None = None  # CPU threads of the learner: so many micro-batches at a time; null: one at a time
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    # what the run does, in this order; each stage starts from the model of the one before. At least one
    stages: tuple[Annotated[StageConfig, ByKind()], ...]
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    # where metrics go beside `metrics.jsonl`: `tensorboard`, `wandb`, `trackio`, `mlflow`; see
    # [metrics](metrics.md#trackers)
    trackers: tuple[str, ...] = ("tensorboard",)
    export: bool = True  # write a Hugging Face folder with code at the end

    def __post_init__(self) -> None:
        _check(bool(self.name) and "/" not in self.name, "name", self.name, "a non-empty name without '/'")
        _check(bool(self.output_dir), "output_dir", self.output_dir, "a folder's name")
        _check(self.mirror is None or "://" in self.mirror, "mirror", self.mirror, "a URL such as s3://bucket/mine")
        _check(self.threads is None or self.threads > 0, "threads", self.threads, "1 or more, or left out")
        _check(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2^63 - 1 (9.2e18)")
        _check(len(self.stages) > 0, "stages", list(self.stages), "at least one stage")
        self._check_names()
        for stage in self.trained_stages:
            self._check_low_precision(stage)
        for stage in self.stages if self.model.quantization else ():
            self._check_quantized_base(stage)
        for stage in self.rl_stages:
            self._check_shared_workers(stage)

    @property
    def rl_stages(self) -> list[RLConfig]:
        """The reinforcement-learning stages, in their order."""
        return [stage for stage in self.stages if isinstance(stage, RLConfig)]

    @property
    def trained_stages(self) -> list[RLConfig | SupervisedConfig]:
        """The stages that a learner trains, on one rank or several, in their order."""
        return [stage for stage in self.stages if isinstance(stage, RLConfig | SupervisedConfig)]

    @property
    def last_rl(self) -> RLConfig | None:
        """The last reinforcement-learning stage.

        Its rewards, judge and sampling also serve where no stage is meant: scoring, and evaluation of the run.
        """
        return self.rl_stages[-1] if self.rl_stages else None

    def data_of(self, stage: StageConfig) -> DataConfig:
        """What a stage trains on and is evaluated on: its own data, or the run's."""
        return stage.data or self.data

    @property
    def all_data(self) -> list[DataConfig]:
        """The data of all stages, each once, in the stages' order."""
        found: list[DataConfig] = []
        for stage in self.stages:
            found += [self.data_of(stage)] if self.data_of(stage) not in found else []
        return found

    @property
    def engine_dtype(self) -> str:
        """The type of the weights that the workers generate with."""
        return self.model.dtype if self.last_rl is None else self._engine_dtype_of(self.last_rl)

    def _engine_dtype_of(self, stage: RLConfig) -> str:
        return stage.engine_dtype or stage.ranks.compute_dtype or self.model.dtype

    def generates(self, stage: StageConfig) -> bool:
        """Whether a stage needs rollout workers: to train, or to answer held-out tasks."""
        alone = isinstance(stage, SupervisedConfig) and not isinstance(stage, LongContextConfig | LongToShortConfig)
        return not alone or self.evaluation.tasks > 0

    @property
    def longest_sequence(self) -> int:
        """The most tokens that a prompt and its answer can have in this run."""
        prompts = [data.max_prompt_tokens for data in self.all_data]
        answers = [self.evaluation.max_new_tokens, *(rl.sampling.max_new_tokens for rl in self.rl_stages)]
        return max(prompts) + max(answers)

    def _check_names(self) -> None:
        """Every stage has a name of its own, which is neither a key of the recipe nor a folder of the run."""
        taken = _FOLDERS | {key.name for key in fields(self)}
        for stage in self.stages:
            where = f"{stage.name}.name"
            _check(stage.name not in taken, where, stage.name, "another name: it is in use for something else")
            taken.add(stage.name)

    def _check_low_precision(self, stage: RLConfig | SupervisedConfig) -> None:
        """What does not go with weights in bfloat16."""
        if self.model.dtype != "bfloat16":
            return
        ranks, state = stage.ranks, stage.optimizer.state
        _check(
            ranks.compute_dtype is None,
            f"{stage.name}.ranks.compute_dtype",
            ranks.compute_dtype,
            "left out where model.dtype is bfloat16 already",
        )
        _check(
            state != "8bit" or ranks.count == 1,
            f"{stage.name}.optimizer.state",
            state,
            "bfloat16 or float32 where ranks.count is above 1 and model.dtype is bfloat16: torchao's 8-bit moments of "
            "such weights cannot be sharded",
        )

    def _check_quantized_base(self, stage: StageConfig) -> None:
        """What does not go with a frozen base in 4 bits, which adapters of all stages have in common."""
        where, value = f"{stage.name}.kind", stage.kind
        kept = "another stage, or model.lora.quantization left out: the base in 4 bits is that of the whole run"
        _check(value != "long_context", where, value, kept)
        if isinstance(stage, LongToShortConfig):
            _check(stage.method != "average", f"{stage.name}.method", stage.method, "shortest or dpo, " + kept[15:])
        if isinstance(stage, RLConfig | SupervisedConfig):
            alone = "left out: with model.lora.quantization one process trains, in model.dtype"
            _check(stage.ranks.count == 1, f"{stage.name}.ranks.count", stage.ranks.count, "1, or " + alone)
            dtype = stage.ranks.compute_dtype
            _check(dtype is None, f"{stage.name}.ranks.compute_dtype", dtype, alone)

    def _check_shared_workers(self, stage: RLConfig) -> None:
        """All stages generate with the same workers."""
        for key in ("engine", "engine_options", "workers", "colocate", "worker_deadline"):
            first = getattr(self.rl_stages[0], key)
            allowed = f"{first}, as in stage {self.rl_stages[0].name}: the stages of a run share the workers"
            _check(getattr(stage, key) == first, f"{stage.name}.{key}", getattr(stage, key), allowed)
        own, shared = self._engine_dtype_of(stage), self.engine_dtype
        allowed = f"{shared}, as in stage {self.rl_stages[-1].name}: the stages of a run share the workers"
        _check(own == shared, f"{stage.name}.engine_dtype", own, allowed)
