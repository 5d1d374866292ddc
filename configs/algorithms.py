"""The algorithms of reinforcement learning: one table from a name to its parts, and the keys of `rl.loss`.

A recipe names a combination that a paper describes. Keys that are left out take the paper's part; a part that may
stand in its place can be given, and one that would make it another algorithm is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from configs.correction import CorrectionConfig
from configs.critic import CriticConfig
from configs.rules import CLOSED, check

Name = Literal["kimi_k15", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_pp", "ppo"]
Advantage = Literal["group_std", "group_mean", "leave_one_out", "global_std", "group_global_std", "gae"]
Normalization = Literal["sequence", "token", "fixed", "sum"]
Reference = Literal["iteration", "frozen", "ema"]

_GROUP_FREE = ("global_std", "gae")  # advantages without a baseline from the group


@dataclass(frozen=True, slots=True, kw_only=True)
class KLConfig:
    """A penalty on the distance to the reference policy, by Schulman's estimators of KL."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CLOSED

    coef: float  # weight; 0 switches off the algorithm's own
    # of each token's KL (Schulman); k1 in the loss needs `importance_weighted`
    estimator: Literal["k1", "k2", "k3"] = "k3"
    placement: Literal["loss", "reward"] = "loss"  # a term of the loss, or a penalty on the reward
    # in the loss: multiply each token by its ratio, which gives the gradient of KL itself
    importance_weighted: bool = False

    def __post_init__(self) -> None:
        check(self.coef >= 0, "coef", self.coef, "0 (none) or more")
        in_loss = self.placement == "loss"
        check(
            self.estimator != "k1" or not in_loss or self.importance_weighted,
            "estimator",
            self.estimator,
            "k2 or k3 in the loss: the mean gradient of k1 is 0 there, unless importance_weighted is true",
        )
        check(
            in_loss or not self.importance_weighted,
            "importance_weighted",
            self.importance_weighted,
            "false where placement is reward: the reward has no gradient",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A row of the table: the paper's part first, then what may stand in its place, and why nothing else may."""

    advantages: tuple[Advantage, ...]
    advantages_why: str
    normalizations: tuple[Normalization, ...]
    normalizations_why: str
    clip: tuple[float | None, float] | None = None  # below and above the ratio 1; None below: no bound
    sequence_level: bool = False  # one ratio for the whole completion instead of one a token
    kl: KLConfig | None = None
    overlong_share: float = 0.0  # of the token limit, over which the reward of long completions falls
    dynamic_sampling: bool = False  # groups whose completions are all right or all wrong are replaced


_BASELINE = "the baseline comes from the group: global_std is reinforce_pp's, and only ppo has the critic for gae"
_GROUP: tuple[Advantage, ...] = ("group_std", "group_mean", "leave_one_out", "group_global_std")
_WHOLE = "it weighs whole completions by their own log-probability"
_SUMS = "with sum, long completions outweigh the others; only sequence-level losses take it"

ALGORITHMS: Mapping[str, Algorithm] = {
    "kimi_k15": Algorithm(
        advantages=("group_mean",),
        advantages_why="the square compares A with tau times the log-ratio, so A keeps the reward's unit",
        normalizations=("sum",),
        normalizations_why="the paper squares the log-ratio of the whole completion",
        sequence_level=True,
    ),
    "grpo": Algorithm(
        advantages=_GROUP,
        advantages_why=_BASELINE,
        normalizations=("sequence", "token", "fixed"),
        normalizations_why=_SUMS,
        clip=(0.2, 0.2),
    ),
    "dr_grpo": Algorithm(
        advantages=("group_mean",),
        advantages_why="Dr.GRPO is GRPO without the division by the deviation",
        normalizations=("fixed",),
        normalizations_why="Dr.GRPO is GRPO without the division by the completion's length",
        clip=(0.2, 0.2),
    ),
    "dapo": Algorithm(
        advantages=_GROUP,
        advantages_why=_BASELINE,
        normalizations=("token",),
        normalizations_why="DAPO counts every token of the step alike; grpo takes the others",
        clip=(0.2, 0.28),
        overlong_share=0.2,
        dynamic_sampling=True,
    ),
    "gspo": Algorithm(
        advantages=_GROUP,
        advantages_why=_BASELINE,
        normalizations=("sequence",),
        normalizations_why=_WHOLE,
        clip=(3e-4, 4e-4),
        sequence_level=True,
    ),
    "cispo": Algorithm(
        advantages=_GROUP,
        advantages_why=_BASELINE,
        normalizations=("token", "sequence", "fixed"),
        normalizations_why=_SUMS,
        clip=(None, 4.0),
    ),
    "rloo": Algorithm(
        advantages=("leave_one_out",),
        advantages_why="RLOO is named after its leave-one-out baseline; grpo takes the others",
        normalizations=("sum",),
        normalizations_why=_WHOLE,
        clip=(0.2, 0.2),
        sequence_level=True,
    ),
    "reinforce_pp": Algorithm(
        advantages=("global_std", "group_global_std"),
        advantages_why="REINFORCE++ divides by the deviation of the whole step",
        normalizations=("token", "sequence", "fixed"),
        normalizations_why=_SUMS,
        clip=(0.2, 0.2),
        kl=KLConfig(coef=0.01, estimator="k1", placement="reward"),
    ),
    "ppo": Algorithm(
        advantages=("gae",),
        advantages_why="PPO's advantage comes from its critic; grpo and reinforce_pp are PPO's clip without one",
        normalizations=("token", "sequence", "fixed"),
        normalizations_why=_SUMS,
        clip=(0.2, 0.2),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmParts:
    """An algorithm with every part decided: what the recipe gives, else what the table says."""

    advantage: Advantage
    normalization: Normalization
    clip_low: float | None
    clip_high: float
    reference: Reference
    kl: KLConfig | None
    critic: CriticConfig | None
    overlong_share: float

    @property
    def least_rollouts(self) -> int:
        """Fewest rollouts of a group that can be trained on: two where the baseline is the group's."""
        return 1 if self.advantage in _GROUP_FREE else 2

    @property
    def keeps_equal_groups(self) -> bool:
        """True if a group of equal rewards is trained on, because it moves the advantages of the step or its own.

        Its rewards count in a mean or deviation of the whole step, or differ after a KL penalty is subtracted.
        """
        of_step = self.advantage in (*_GROUP_FREE, "group_global_std")
        return of_step or (self.kl is not None and self.kl.placement == "reward")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """The algorithm and its constants; what is left out is the algorithm's own, what it does not read is refused."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CLOSED

    algorithm: Name = "kimi_k15"  # the policy loss and its parts
    advantage: Advantage | None = None  # how a reward becomes an advantage
    normalization: Normalization | None = None  # how the losses of tokens become one number
    clip_low: float | None = None  # the ratio is clipped at 1 - `clip_low`; from 0, below 1
    clip_high: float | None = None  # and at 1 + `clip_high`; 0 or more
    tau: float = 0.1  # Kimi k1.5 §2.3.2: weight of the squared log-ratio of the whole completion; greater than 0
    kl: KLConfig | None = None  # a penalty on the distance to the reference policy
    # what KL and k1.5's log-ratio are measured from: the policy at the start of the step, the policy at RL's start, or
    # a running mean of the policy; null: `iteration` with k1.5, else `frozen`
    reference: Reference | None = None
    reference_decay: float = 0.99  # of `ema`: what remains of the reference at each step; above 0, below 1
    reset_optimizer: bool = False  # a fresh optimizer at each step (Kimi k1.5 §2.3.2)
    entropy_bonus: float = 0.0  # weight of the policy's mean entropy; 0 or more
    sft_coef: float = 0.0  # weight of the negative log-likelihood of correct completions; 0 or more
    balance_coef: float = 0.0  # weight of the sequence-wise balance of the experts' load (DeepSeek-V3 eq. 17); 0: none
    # importance weights for an engine that differs from the learner; null: none
    correction: CorrectionConfig | None = None
    critic: CriticConfig | None = None  # of PPO; null takes the defaults below

    def __post_init__(self) -> None:
        row = ALGORITHMS[self.algorithm]
        for key, allowed, why in (
            ("advantage", row.advantages, row.advantages_why),
            ("normalization", row.normalizations, row.normalizations_why),
        ):
            value = getattr(self, key)
            check(value in (None, *allowed), key, value, f"{' or '.join(allowed)} with {self.algorithm}: {why}")
        self._check_clip(row)
        check(self.tau > 0, "tau", self.tau, "greater than 0")
        check(self.entropy_bonus >= 0, "entropy_bonus", self.entropy_bonus, "0 or more")
        check(self.sft_coef >= 0, "sft_coef", self.sft_coef, "0 or more")
        check(self.balance_coef >= 0, "balance_coef", self.balance_coef, "0 or more")
        self._check_unread()
        self._check_reference()
        check(
            self.correction is None or self.correction.level == "sequence" or not row.sequence_level,
            "correction.level",
            self.correction and self.correction.level,
            f"sequence with {self.algorithm}: {_WHOLE}",
        )

    def _check_clip(self, row: Algorithm) -> None:
        for key in ("clip_low", "clip_high"):
            value = getattr(self, key)
            check(value is None or row.clip is not None, key, value, f"left out: {self.algorithm} does not clip")
        check(self.clip_low is None or 0 <= self.clip_low < 1, "clip_low", self.clip_low, "in [0, 1)")
        check(self.clip_high is None or self.clip_high >= 0, "clip_high", self.clip_high, "0 or more")

    def _check_unread(self) -> None:
        """Constants that only one algorithm reads must keep their defaults with the others."""
        defaults = {key.name: key.default for key in fields(self)}
        for key, reader in (("tau", "kimi_k15"), ("critic", "ppo")):
            value, default = getattr(self, key), defaults[key]
            unread = self.algorithm != reader and value != default
            left = "left out" if default is None else f"left at {default}"
            check(not unread, key, value, f"{left}: {self.algorithm} does not read it")

    def _check_reference(self) -> None:
        check(
            self.kl is None or self.algorithm != "kimi_k15",
            "kl.coef",
            self.kl and self.kl.coef,
            "left out with kimi_k15: its squared log-ratio holds the policy to the reference already, with weight tau",
        )
        kl = self.resolved().kl
        check(
            self.reference is None or kl is not None or self.algorithm == "kimi_k15",
            "reference",
            self.reference,
            f"left out: {self.algorithm} compares with no reference unless kl is given",
        )
        check(
            self.reference != "iteration" or kl is None or kl.placement == "loss",
            "reference",
            self.reference,
            "frozen or ema where the KL is in the reward: the policy that sampled is at distance 0 from itself",
        )
        check(0 < self.reference_decay < 1, "reference_decay", self.reference_decay, "between 0 and 1")
        check(
            self.reference == "ema" or self.reference_decay == 0.99,
            "reference_decay",
            self.reference_decay,
            "left at 0.99 where reference is not ema",
        )

    @property
    def reference_model(self) -> Literal["frozen", "ema"] | None:
        """The model of its own that the policy is compared with. None: no comparison, or with the step's own start."""
        parts = self.resolved()
        compares = parts.kl is not None or self.algorithm == "kimi_k15"
        return parts.reference if compares and parts.reference != "iteration" else None

    def resolved(self) -> AlgorithmParts:
        """Every part decided."""
        row = ALGORITHMS[self.algorithm]
        low, high = row.clip or (None, 0.0)
        kl = self.kl or row.kl
        return AlgorithmParts(
            advantage=self.advantage or row.advantages[0],
            normalization=self.normalization or row.normalizations[0],
            clip_low=low if self.clip_low is None else self.clip_low,
            clip_high=high if self.clip_high is None else self.clip_high,
            reference=self.reference or ("iteration" if self.algorithm == "kimi_k15" else "frozen"),
            kl=kl if kl and kl.coef else None,
            critic=(self.critic or CriticConfig()) if self.algorithm == "ppo" else None,
            overlong_share=row.overlong_share,
        )
