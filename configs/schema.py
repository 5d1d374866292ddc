"""The schema of a recipe: frozen dataclasses whose `__post_init__` holds the ranges and the cross-field rules.

They are plain dataclasses so that engines and the learner can take them where pydantic is not installed;
`configs.load` validates types and unknown keys with pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from configs.algorithms import GROUP_FREE, LossConfig
from configs.rewards import JudgeConfig, RewardConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyConfig:
    """Sizes of the tiny Kimi-VL that `model.path: tiny` makes on the spot."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    hidden_size: int = 128
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 96
    vision_hidden_size: int = 64
    vision_num_hidden_layers: int = 2

    def __post_init__(self) -> None:
        for key in fields(self):
            _check(getattr(self, key.name) > 0, key.name, getattr(self, key.name), "1 or more")
        _check(
            self.num_experts_per_tok <= self.n_routed_experts,
            "num_experts_per_tok",
            self.num_experts_per_tok,
            f"at most n_routed_experts = {self.n_routed_experts}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Train small adapters instead of the weights (LoRA, arXiv:2106.09685): `W + (alpha / rank) B A`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[Literal["attention", "mlp", "experts", "vision"], ...] = ("attention", "mlp")

    def __post_init__(self) -> None:
        _check(self.rank > 0, "rank", self.rank, "1 or more")
        _check(self.alpha > 0, "alpha", self.alpha, "greater than 0")
        _check(bool(self.targets), "targets", self.targets, "at least one of attention, mlp, experts, vision")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Where the weights come from (`tiny`, made on the spot; a folder; a hub name) and which of them are trained."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    path: str = "tiny"
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraConfig | None = None  # in every stage; merged at its end
    freeze: tuple[str, ...] = ()  # parameters whose names hold one of these are not trained
    tiny: TinyConfig = field(default_factory=TinyConfig)

    def __post_init__(self) -> None:
        _check(bool(self.path), "path", self.path, "`tiny`, a folder, or a hub name")
        own = self.path == "tiny" or self.tiny == TinyConfig()
        _check(own, "path", self.path, "tiny where sizes are given under tiny; other weights have their own")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One data source of a mixture.

    `use` is a built-in (`digit_sums`, `easy_vqa`), a local `.jsonl`/`.parquet` file, or a hub data set's name;
    `columns` maps our field names (images, question, answer, verifier, choices, difficulty, solution, id) to the
    file's; `options` go to a built-in.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    use: str
    split: str = "train"
    weight: float = 1.0
    limit: int | None = None  # at most so many tasks
    columns: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

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

    train: tuple[SourceConfig, ...] = (SourceConfig(use="digit_sums"),)
    validation: tuple[SourceConfig, ...] = ()
    held_out: tuple[SourceConfig, ...] = (SourceConfig(use="digit_sums", split="held_out"),)
    max_prompt_tokens: int = 4096  # longer prompts are left out and counted

    def __post_init__(self) -> None:
        _check(len(self.train) > 0, "train", self.train, "at least one source")
        _check(len(self.held_out) > 0, "held_out", self.held_out, "at least one source")
        _check(self.max_prompt_tokens > 0, "max_prompt_tokens", self.max_prompt_tokens, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW on everything, or Muon on the matrices and AdamW on the rest (Moonlight §2.2)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-6
    adamw_learning_rate: float | None = None  # for what Muon leaves to AdamW; the same as learning_rate when left out
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    final_fraction: float = 0.0  # of the learning rate, where linear and cosine end
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "greater than 0")
        _check(
            self.adamw_learning_rate is None or self.name == "muon",
            "adamw_learning_rate",
            self.adamw_learning_rate,
            f"left out: {self.name} reads learning_rate alone",
        )
        _check(
            self.adamw_learning_rate is None or self.adamw_learning_rate > 0,
            "adamw_learning_rate",
            self.adamw_learning_rate,
            "greater than 0",
        )
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _check(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "between 0 and 1")
        _check(
            self.final_fraction == 0 or self.schedule != "constant",
            "final_fraction",
            self.final_fraction,
            "0 where schedule is constant",
        )
        _check(self.grad_clip > 0, "grad_clip", self.grad_clip, "greater than 0")
        _check(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "beta1, beta2", (self.beta1, self.beta2), "in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTConfig:
    """One supervised stage (Kimi-VL §2.4): `thinking_share` of the examples carry a step-by-step solution."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    steps: int
    batch_size: int = 32
    micro_batches: int = 1  # forward passes a step; each holds examples of similar length
    thinking_share: float = 0.0
    save_every: int = 500
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
class SamplingConfig:
    """How tokens are drawn. `temperature: 0` is greedy."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    max_new_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    min_p: float = 0.0
    repeat_window: int = 0  # end an answer whose last so many tokens go round in a loop; 0: never
    repeat_period: int = 32  # the longest loop, in tokens

    def __post_init__(self) -> None:
        _check(self.max_new_tokens > 0, "max_new_tokens", self.max_new_tokens, "1 or more")
        _check(self.temperature >= 0, "temperature", self.temperature, "0 (greedy) or more")
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        _check(self.top_k >= 0, "top_k", self.top_k, "0 (no limit) or more")
        _check(0 <= self.min_p < 1, "min_p", self.min_p, "in [0, 1)")
        _check(
            self.repeat_window == 0 or self.repeat_window >= 2 * self.repeat_period,
            "repeat_window",
            self.repeat_window,
            f"0 (never), or at least twice repeat_period = {self.repeat_period}",
        )
        _check(self.repeat_period > 0, "repeat_period", self.repeat_period, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRewardConfig:
    """k1.5 §2.3.3: nothing for the first `warmup_steps`, then `weight` times the min-max length reward."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    weight: float
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _check(self.weight > 0, "weight", self.weight, "greater than 0 (length_reward: null for none)")
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerConfig:
    """Which tasks a step asks (k1.5 §2.3.4, DAPO §3.2)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    name: Literal["uniform", "curriculum", "curriculum_by_success", "prioritized", "dynamic"] = "uniform"
    pool: int | None = None  # tasks that are seen again and again; all, or 1,024 of an endless source, when left out
    until: float = 0.5  # share of the steps after which a curriculum has opened all tasks
    rounds: int = 3  # of refilling groups without signal, in one step

    def __post_init__(self) -> None:
        _check(self.pool is None or self.pool > 0, "pool", self.pool, "1 or more, or left out")
        _check(
            self.pool is None or self.name not in ("uniform", "dynamic"),
            "pool",
            self.pool,
            f"left out: {self.name} walks through all tasks",
        )
        _check(0 < self.until <= 1, "until", self.until, "in (0, 1]")
        _check(self.until == 0.5 or self.name == "curriculum", "until", self.until, "left out: it is curriculum's")
        _check(self.rounds > 0, "rounds", self.rounds, "1 or more")
        _check(self.rounds == 3 or self.name == "dynamic", "rounds", self.rounds, "left out: it is dynamic's")


@dataclass(frozen=True, slots=True, kw_only=True)
class RLConfig:
    """The reinforcement-learning stage."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    steps: int
    prompts_per_step: int = 32
    samples_per_prompt: int = 8
    epochs: int = 1  # passes over each step's rollouts
    minibatches: int = 1  # optimizer steps in each pass
    micro_batch_tokens: int = 16_384  # packed into one forward pass
    workers: int = 2  # rollout actors
    worker_deadline: float = 120.0  # seconds without any progress after which a worker hangs, and is replaced
    parity_threshold: float | None = None  # largest log-prob gap of engine and learner; 1e-3, 0.1 in bfloat16; 0: off
    eval_every: int = 10
    save_every: int = 10
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rewards: tuple[RewardConfig, ...] = (RewardConfig(),)
    length_reward: LengthRewardConfig | None = None
    judge: JudgeConfig | None = None
    overlong_buffer: int | None = None  # DAPO §3.4: last tokens before the limit, over which the reward falls by 1
    mask_truncated: bool = False  # DAPO §3.4: answers that were cut off are not learnt from
    repeat_penalty: float = 0.0  # taken off the reward of an answer that sampling.repeat_window ended
    shuffle_rewards: bool = False  # a control: rewards are permuted over the step, so nothing can be learnt

    def __post_init__(self) -> None:
        for key in ("steps", "prompts_per_step", "epochs", "minibatches", "micro_batch_tokens", "workers"):
            _check(getattr(self, key) > 0, key, getattr(self, key), "1 or more")
        _check(self.worker_deadline > 0, "worker_deadline", self.worker_deadline, "greater than 0")
        _check(
            self.parity_threshold is None or self.parity_threshold >= 0,
            "parity_threshold",
            self.parity_threshold,
            "0 (off) or more, or left out",
        )
        _check(len(self.rewards) > 0, "rewards", self.rewards, "at least one term")
        least = 1 if self.loss.resolved().advantage in GROUP_FREE else 2
        _check(
            self.samples_per_prompt >= least,
            "samples_per_prompt",
            self.samples_per_prompt,
            f"{least} or more (a group)",
        )
        copies = self.loss.sft_coef > 0
        _check(
            not (self.shuffle_rewards and copies),
            "shuffle_rewards",
            self.shuffle_rewards,
            "false where loss.sft_coef is above 0: the supervised term would show the control what is correct",
        )
        _check(
            self.overlong_buffer is None or 0 <= self.overlong_buffer < self.sampling.max_new_tokens,
            "overlong_buffer",
            self.overlong_buffer,
            f"from 0 (none) to below sampling.max_new_tokens = {self.sampling.max_new_tokens}",
        )
        _check(self.eval_every > 0, "eval_every", self.eval_every, "1 or more")
        _check(self.save_every > 0, "save_every", self.save_every, "1 or more")
        _check(self.repeat_penalty >= 0, "repeat_penalty", self.repeat_penalty, "0 or more")
        _check(
            self.repeat_penalty == 0 or self.sampling.repeat_window > 0,
            "repeat_penalty",
            self.repeat_penalty,
            "0 where sampling.repeat_window is 0: no answer ends for repeating itself",
        )
        _check(self.sampling.temperature > 0, "sampling.temperature", self.sampling.temperature, "greater than 0 in RL")
        _check(
            self.minibatches <= self.prompts_per_step,
            "minibatches",
            self.minibatches,
            f"at most prompts_per_step = {self.prompts_per_step}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Evaluation: greedy, and sampled at RL's temperature (1 where there is no RL stage)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    tasks: int = 400  # held-out tasks, at the end of each stage
    validation_tasks: int = 200  # on a schedule during RL
    samples: int = 1  # sampled answers a task
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        for key in ("tasks", "validation_tasks", "samples", "max_new_tokens"):
            _check(getattr(self, key) > 0, key, getattr(self, key), "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A whole run: instruct SFT, long-CoT SFT, RL, evaluation, export. A stage that is null is skipped."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    name: str
    output_dir: str
    seed: int = 0
    threads: int | None = None  # CPU threads of the learner; torch's default when left out
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    instruct: SFTConfig | None = None
    long_cot: SFTConfig | None = None
    rl: RLConfig | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    export: bool = True  # write a Hugging Face folder with code at the end

    def __post_init__(self) -> None:
        _check(bool(self.name) and "/" not in self.name, "name", self.name, "a non-empty name without '/'")
        _check(bool(self.output_dir), "output_dir", self.output_dir, "a folder's name")
        _check(self.threads is None or self.threads > 0, "threads", self.threads, "1 or more, or left out")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        _check(
            any((self.instruct, self.long_cot, self.rl)), "instruct, long_cot, rl", None, "set in at least one of them"
        )
