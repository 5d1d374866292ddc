"""The reinforcement-learning stage: which tasks, how they are sampled, and what is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from configs.algorithms import ALGORITHMS, LossConfig
from configs.engine import check_engine
from configs.on_policy_checks import check_single_update
from configs.optimizer import OptimizerConfig
from configs.ranks import RANKS_MAY_CHANGE, RanksConfig
from configs.rewards import JudgeConfig, LengthRewardConfig, RewardConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check
from configs.stage import StageConfig
from configs.task_sampler import TaskSamplerConfig

MIN_TEMPERATURE = 0.01  # divided by less, logits overflow float32, and nothing can be drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How tokens are drawn. `temperature: 0` is greedy."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    max_new_tokens: int = 1024  # a completion is cut off here
    temperature: float = 1.0  # 0 is greedy, else 0.01 or more; not 0 in RL
    top_p: float = 1.0  # sample from the smallest set of tokens with this much probability; above 0, up to 1
    top_k: int = 0  # sample from so many of the most likely tokens; 0: no limit
    min_p: float = 0.0  # sample from tokens at least this likely, relative to the most likely one; from 0, below 1
    # end a completion, with the reason `repeat`, once its last so many tokens are a phrase of up to half as many tokens
    # over and over; 0: never, else 2 or more
    repeat_window: int = 0

    def __post_init__(self) -> None:
        _check(self.max_new_tokens > 0, "max_new_tokens", self.max_new_tokens, "1 or more")
        drawn = self.temperature >= MIN_TEMPERATURE
        _check(drawn or self.temperature == 0, "temperature", self.temperature, "0 (greedy), or 0.01 or more")
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        _check(self.top_k >= 0, "top_k", self.top_k, "0 (no limit) or more")
        _check(0 <= self.min_p < 1, "min_p", self.min_p, "in [0, 1)")
        loop = self.repeat_window == 0 or self.repeat_window >= 2
        _check(loop, "repeat_window", self.repeat_window, "0 (never), or 2 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialConfig:
    """Partial rollouts (k1.5 §2.6.2): a completion that exceeds its budget is continued in the next step."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    budget: int  # new tokens that a completion may get in one step; below `sampling.max_new_tokens`
    max_segments: int = 8  # steps that may write on one completion; one that is unfinished then is cut off
    # tokens written so many updates ago, or more, are not trained on: 1 keeps only those of the current policy; null
    # keeps all
    mask_age: int | None = None

    def __post_init__(self) -> None:
        _check(self.budget > 0, "budget", self.budget, "1 or more")
        _check(self.max_segments > 0, "max_segments", self.max_segments, "1 or more")
        _check(self.mask_age is None or self.mask_age > 0, "mask_age", self.mask_age, "1 or more, or left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncConfig:
    """Rollouts run ahead of the learner, and weights are replaced while they run; see docs/async.md."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    # versions by which a completion's first token may be behind when it is trained on; 0 is a synchronous run, sample
    # for sample
    max_staleness: int = 1
    # what to do about slow groups: wait for them, or train on those that are complete and drop what is too old
    stale: Literal["wait", "drop"] = "wait"

    def __post_init__(self) -> None:
        _check(self.max_staleness >= 0, "max_staleness", self.max_staleness, "0 (as a synchronous run) or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RLConfig(StageConfig):
    """A reinforcement-learning stage."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset(
        {
            "workers",
            "colocate",
            "worker_deadline",
            "engine",
            "engine_options",
            "micro_batch_tokens",
            *RANKS_MAY_CHANGE,
            "eval_every",
            "save_every",
            "alarms",
            "steps",  # the schedule of the learning rate follows
        }
    )

    kind: Literal["rl"] = "rl"
    steps: int  # rounds of sampling, scoring and updating
    prompts_per_step: int = 32  # prompts in a step
    # completions for each prompt: a group; 2 or more, or 1 where the advantage needs no group (`global_std`, `gae`)
    samples_per_prompt: int = 8
    epochs: int = 1  # passes over each step's completions
    minibatches: int = 1  # optimizer steps in each pass; at most `prompts_per_step`
    # tokens packed into one forward pass, and image patches that pass the vision tower together; less needs less memory
    # and gives the same gradient
    micro_batch_tokens: int = 16_384
    ranks: RanksConfig = field(default_factory=RanksConfig)
    # what a worker generates with: `transformers`, [`vllm`](engines.md#vllm), which `make vllm-env` installs, or [an
    # engine of your own](engines.md#an-engine-of-your-own), `file.py:Class`
    engine: str = "transformers"
    # keyword arguments of an engine of your own; for `transformers` its [limits](engines.md#the-embedded-engine), for
    # `vllm` [its own arguments](engines.md#options-of-vllm)
    engine_options: dict[str, Any] = field(default_factory=dict)
    # type of the weights that the workers generate with; null: `ranks.compute_dtype` where given, else `model.dtype`
    engine_dtype: Literal["float32", "bfloat16"] | None = None
    workers: int = 2  # rollout actors
    # the workers share the learner's GPU: their engines [sleep](cluster.md#one-gpu-for-both) while the learner works
    colocate: bool = False
    # seconds without progress after which a worker hangs and is [replaced](reliability.md)
    worker_deadline: float = 120.0
    # the update uses the experts that the engine recorded (arXiv:2510.11370); see [below](#router-replay)
    router_replay: bool = False
    # largest gap of a token's log-prob between engine and learner after a weight sync (in bfloat16 the median gap);
    # null: 1e-3 (0.1 in bfloat16); 0: no check
    parity_threshold: float | None = None
    # a gradient norm of more than so many times the median of the last 64 is [skipped and
    # kept](reliability.md#a-step-that-goes-wrong); 0: never, else greater than 1
    spike_threshold: float = 20.0
    eval_every: int = 10  # steps between evaluations on the validation tasks
    save_every: int = 10  # steps between checkpoints
    # [alarms](watching.md#alarms): `warn` says and keeps them, `stop` also ends the run after a checkpoint
    alarms: Literal["warn", "stop", "off"] = "warn"
    asynchronous: AsyncConfig | None = None  # [rollouts that run ahead](async.md); null: a synchronous run
    task_sampler: TaskSamplerConfig = field(default_factory=TaskSamplerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    # [partial rollouts](engines.md#partial-rollouts): long completions are written over several steps; null: whole
    # completions
    partial: PartialConfig | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rewards: tuple[RewardConfig, ...] = (RewardConfig(),)  # the terms of the reward, added up; at least one
    length_reward: LengthRewardConfig | None = None  # the length reward of Kimi k1.5; null: none
    # the language model behind the verifier `judge`; null: none, and `judge` is an error
    judge: JudgeConfig | None = None
    # the reward falls over the last so many tokens before `sampling.max_new_tokens`, by 1 at the limit (DAPO §3.4); 0:
    # never, null: the algorithm's
    overlong_buffer: int | None = None
    # completions that were cut off count in the group's mean, but are not trained on (DAPO §3.4)
    mask_truncated: bool = False
    # subtracted from the reward of a completion that `sampling.repeat_window` ended; 0 or more
    repeat_penalty: float = 0.0
    shuffle_rewards: bool = False  # a control: rewards change places within a step, so nothing can be learned

    @property
    def decided_task_sampler(self) -> TaskSamplerConfig:
        """`task_sampler` with its name decided: where none is given, the algorithm's own."""
        return replace(self.task_sampler, name=self._task_sampler_name)

    @property
    def _task_sampler_name(self) -> str:
        replaces = ALGORITHMS[self.loss.algorithm].dynamic_sampling and not self.loss.resolved().keeps_equal_groups
        own = "dynamic" if replaces else "uniform"
        return self.task_sampler.name or own

    @property
    def filters_by_accuracy(self) -> bool:
        """True where a group needs both right and wrong completions to be trained on (DAPO eq. 8 and 11).

        A recipe that does not reward the verifier's verdict has no accuracy to look at: it filters by reward.
        """
        filters = ALGORITHMS[self.loss.algorithm].dynamic_sampling or self._task_sampler_name == "dynamic"
        return filters and any(term.use == "verifier" for term in self.rewards)

    def __post_init__(self) -> None:
        StageConfig.__post_init__(self)  # `super()` does not work in a dataclass with slots
        counts = ("steps", "prompts_per_step", "epochs", "minibatches", "micro_batch_tokens", "workers")
        for key in (*counts, "eval_every", "save_every"):
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
        check_engine(self.engine)
        _check(len(self.rewards) > 0, "rewards", self.rewards, "at least one term")
        _check(self.repeat_penalty >= 0, "repeat_penalty", self.repeat_penalty, "0 or more")
        self._check_together()
        self._check_colocate()
        self._check_loss()

    def _check_together(self) -> None:
        """The rules between keys."""
        _check(
            self.partial is None or self.asynchronous is None,
            "partial",
            self.partial,
            "null where asynchronous is set: no step waits for a long completion, so none needs a budget",
        )
        native, drawn = self.engine_options.get("sampler") == "native", self.sampling
        _check(
            native or not (self.router_replay and self.engine == "vllm"),
            "router_replay",
            self.router_replay,
            "false where engine is vllm, except with engine_options.sampler: native, which returns experts",
        )
        _check(
            (drawn.top_p, drawn.top_k, drawn.min_p) == (1, 0, 0) or not native,
            "engine_options.sampler",
            "native",
            "exact where sampling has top_p, top_k or min_p: vLLM's own sampler returns log-probs after these filters",
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
            f"below sampling.max_new_tokens = {self.sampling.max_new_tokens} (partial: null for no budget)",
        )
        _check(
            self.repeat_penalty == 0 or self.sampling.repeat_window > 0,
            "repeat_penalty",
            self.repeat_penalty,
            "0 where sampling.repeat_window is 0: no completion is ended for repeating itself",
        )
        _check(self.sampling.temperature > 0, "sampling.temperature", self.sampling.temperature, "greater than 0 in RL")
        _check(
            self.minibatches <= self.prompts_per_step,
            "minibatches",
            self.minibatches,
            f"at most prompts_per_step = {self.prompts_per_step}",
        )

    def _check_colocate(self) -> None:
        """Workers and learner must not work at the same time."""
        window, ranks = self.asynchronous.max_staleness if self.asynchronous else 0, self.ranks.count
        reason = f"asynchronous.max_staleness is above 0 ({window}): the workers generate while the learner works"
        _check(not (self.colocate and window), "colocate", self.colocate, f"false where {reason}")
        reason = f"ranks.count is above 1 ({ranks}): each rank has a GPU that no worker uses"
        _check(not (self.colocate and ranks > 1), "colocate", self.colocate, f"false where {reason}")

    def _check_loss(self) -> None:
        """The rules between the loss and the step."""
        check_single_update(self.loss, updates=self.epochs * self.minibatches)
        parts = self.loss.resolved()
        least = parts.least_rollouts
        _check(
            self.samples_per_prompt >= least,
            "samples_per_prompt",
            self.samples_per_prompt,
            f"{least} or more (a group)",
        )
        part = f" and {self.loss.advantage}" if self.loss.advantage else ""
        if parts.kl is not None and parts.kl.placement == "reward":
            part = " and a KL in the reward"
        _check(
            self.task_sampler.name != "dynamic" or not parts.keeps_equal_groups,
            "task_sampler.name",
            self.task_sampler.name,
            f"another with {self.loss.algorithm}{part}: groups of equal rewards are trained on there, so none is "
            "replaced",
        )
        _check(
            self.task_sampler.rounds == 3 or self._task_sampler_name == "dynamic",
            "task_sampler.rounds",
            self.task_sampler.rounds,
            f"left out: {self._task_sampler_name} replaces no groups",
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
