"""The reinforcement-learning stage: which tasks, how they are sampled, and what is learnt from the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from configs.algorithms import GROUP_FREE, LossConfig
from configs.optimizer import OptimizerConfig
from configs.rewards import JudgeConfig, RewardConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


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
class PartialConfig:
    """Partial rollouts (k1.5 §2.6.2): an answer that is not done within its budget goes on in the next step."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    budget: int  # new tokens of an answer in one step
    max_segments: int = 8  # steps that write on one answer; after them it is cut off
    mask_age: int | None = None  # tokens that are so many updates old are not learnt from; all are, when left out

    def __post_init__(self) -> None:
        _check(self.budget > 0, "budget", self.budget, "1 or more")
        _check(self.max_segments > 0, "max_segments", self.max_segments, "1 or more")
        _check(self.mask_age is None or self.mask_age > 0, "mask_age", self.mask_age, "1 or more, or left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksConfig:
    """On how many processes the learner runs; what is learnt does not depend on it."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    count: int = 1  # each holds a part of the weights and of the optimizer's state, and learns from a part of the step
    compute_dtype: Literal["bfloat16"] | None = None  # of the passes, over weights that stay in model.dtype

    def __post_init__(self) -> None:
        _check(self.count > 0, "count", self.count, "1 or more")
        _check(
            self.compute_dtype is None or self.count > 1,
            "compute_dtype",
            self.compute_dtype,
            "left out where count is 1: one rank computes in model.dtype",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncConfig:
    """Rollouts run ahead of the learner, and weights are replaced while they run; see docs/async.md."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    max_staleness: int = 1  # versions by which an answer's oldest token may be behind when it is learnt from
    stale: Literal["wait", "drop"] = "wait"  # for slow groups, or go on with those that are complete

    def __post_init__(self) -> None:
        _check(self.max_staleness >= 0, "max_staleness", self.max_staleness, "0 (as a synchronous run) or more")


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
    ranks: RanksConfig = field(default_factory=RanksConfig)
    engine: Literal["transformers", "vllm"] = "transformers"  # what a worker generates with; for vllm: make vllm-env
    workers: int = 2  # rollout actors
    worker_deadline: float = 120.0  # seconds without any progress after which a worker hangs, and is replaced
    router_replay: bool = False  # the update takes the experts that the engine recorded (arXiv:2510.11370)
    parity_threshold: float | None = None  # largest log-prob gap of engine and learner; 1e-3, 0.1 in bfloat16; 0: off
    spike_threshold: float = 20.0  # a gradient norm of more than so many usual ones is skipped; 0: never
    eval_every: int = 10
    save_every: int = 10
    asynchronous: AsyncConfig | None = None  # null: a step's rollouts end before its update begins
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    partial: PartialConfig | None = None
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
        _check(
            self.spike_threshold == 0 or self.spike_threshold > 1,
            "spike_threshold",
            self.spike_threshold,
            "0 (never), or greater than 1",
        )
        _check(len(self.rewards) > 0, "rewards", self.rewards, "at least one term")
        _check(self.eval_every > 0, "eval_every", self.eval_every, "1 or more")
        _check(self.save_every > 0, "save_every", self.save_every, "1 or more")
        _check(self.repeat_penalty >= 0, "repeat_penalty", self.repeat_penalty, "0 or more")
        self._check_together()
        self._check_loss()

    def _check_together(self) -> None:
        """The rules between keys."""
        _check(
            self.partial is None or self.asynchronous is None,
            "partial",
            self.partial,
            "null where asynchronous is set: rollouts that run ahead need no budget, long answers hold up nobody",
        )
        _check(
            not (self.router_replay and self.engine == "vllm"),
            "router_replay",
            self.router_replay,
            "false where engine is vllm, which does not tell the experts",
        )
        _check(
            self.overlong_buffer is None or 0 <= self.overlong_buffer < self.sampling.max_new_tokens,
            "overlong_buffer",
            self.overlong_buffer,
            f"from 0 (none) to below sampling.max_new_tokens = {self.sampling.max_new_tokens}",
        )
        _check(
            self.partial is None or self.partial.budget < self.sampling.max_new_tokens,
            "partial.budget",
            self.partial.budget if self.partial else None,
            f"below sampling.max_new_tokens = {self.sampling.max_new_tokens} (partial: null for whole answers)",
        )
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

    def _check_loss(self) -> None:
        """The rules between the loss and the step."""
        parts = self.loss.resolved()
        least = 1 if parts.advantage in GROUP_FREE else 2
        _check(
            self.samples_per_prompt >= least,
            "samples_per_prompt",
            self.samples_per_prompt,
            f"{least} or more (a group)",
        )
        in_reward = parts.kl is not None and parts.kl.placement == "reward"
        _check(
            self.sampler.name != "dynamic" or not (parts.advantage in GROUP_FREE or in_reward),
            "sampler.name",
            self.sampler.name,
            f"another with {self.loss.algorithm}{' and a KL in the reward' if in_reward else ''}: groups of equal "
            "rewards teach something there, so none is replaced",
        )
        copies = self.loss.sft_coef > 0
        _check(
            not (self.shuffle_rewards and copies),
            "shuffle_rewards",
            self.shuffle_rewards,
            "false where loss.sft_coef is above 0: the supervised term would show the control what is correct",
        )
        _check(
            parts.critic is None or parts.critic.pretrain_steps < self.steps,
            "loss.critic.pretrain_steps",
            parts.critic.pretrain_steps if parts.critic else None,
            f"below steps = {self.steps}: until then the policy waits for its critic",
        )
