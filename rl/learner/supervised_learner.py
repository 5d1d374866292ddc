"""The learner of supervised stages: negative log-likelihood of packed examples, on one process or several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from configs.optimizer import OptimizerConfig
from rl.learner.base import BaseLearner
from rl.learner.batch import ImageSet, pack
from rl.learner.forward import EncodedImages, response_hidden
from rl.learner.parallel import SINGLE_PROCESS, Parallel
from rl.learner.router_replay import balance_term
from rl.types import DummySample, PackedRow, PromptCompletion, SampleHeader
from rollouts.model_family import Routing, VisionLanguageModel, family_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedLearnerConfig:
    """What the learner needs to know of a recipe."""

    optimizer: OptimizerConfig
    total_steps: int  # optimizer steps of the stage, for the schedule
    micro_batch_tokens: int = 16_384  # packed tokens of one forward pass, and patches of one pass of the tower
    balance_coef: float = 0.0  # weight of the routers' balance loss
    seed: int = 0


@dataclass(slots=True)
class _Sums:
    """Log-likelihoods and tokens of each data source, of a part of a step."""

    logprobs: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    balance: float = 0.0

    def add(self, part: Sequence[PromptCompletion], logprobs: torch.Tensor) -> None:
        """Add the log-probs `[N]` of a micro-batch."""
        values = logprobs.detach().double().cpu().numpy()
        ends = np.cumsum([example.trainable_tokens for example in part])[:-1]
        for example, own in zip(part, np.split(values, ends), strict=True):
            self.logprobs[example.prompt.task.source] += float(own.sum())
            self.tokens[example.prompt.task.source] += len(own)

    def merge(self, other: _Sums) -> None:
        """Add another process's part."""
        for source, value in other.logprobs.items():
            self.logprobs[source] += value
            self.tokens[source] += other.tokens[source]
        self.balance += other.balance


class SupervisedLearner(BaseLearner):
    """Trains a model on prompts with their completions; only trainable tokens count. One update is one step.

    `model` is the whole model; see `BaseLearner` for `parallel`.
    """

    def __init__(
        self, model: VisionLanguageModel, config: SupervisedLearnerConfig, *, parallel: Parallel = SINGLE_PROCESS
    ) -> None:
        self.config = config
        super().__init__(
            model,
            optimizer=config.optimizer,
            optimizer_steps=config.total_steps,
            micro_batch_tokens=config.micro_batch_tokens,
            spike_threshold=0.0,
            parallel=parallel,
        )

    def update(self, examples: Sequence[PromptCompletion | SampleHeader]) -> dict[str, float]:
        """One optimizer step on the mean loss over all trainable tokens of `examples`. Returns metrics by name.

        Without a trainable token the step is not made, but the learning rate moves on. Raises UserError after several
        gradients in a row that are not finite.
        """
        self._begin_update(self.config.seed)
        trained = [example for example in examples if example.trainable_tokens]
        tokens = sum(example.trainable_tokens for example in trained)
        sums = self._accumulate(trained, tokens) if trained else _Sums()
        metrics = {
            "loss": -sum(sums.logprobs.values()) / max(1, tokens),
            **self._end_update(),
            "tokens": float(tokens),
            "sequence_tokens": float(sum(map(len, trained))),
        }
        if self.config.balance_coef:
            metrics["balance_loss"] = sums.balance
        return metrics | {f"loss/{source}": -sums.logprobs[source] / n for source, n in sorted(sums.tokens.items())}

    def _accumulate(self, examples: Sequence[PromptCompletion | SampleHeader], tokens: int) -> _Sums:
        """Add the gradient of the mean over `tokens` tokens to the gradients. Returns the sums of all processes."""
        parts, images = self._plan(examples)
        encoded = EncodedImages(self.model, images, self.parallel)

        def loss_of(part: Sequence[PromptCompletion], sums: _Sums) -> torch.Tensor:
            logprobs, row, routing = self._forward(part, images, encoded.features)
            loss = -logprobs.sum() / tokens
            if isinstance(part[0], DummySample):  # it only keeps step with the other processes
                loss = 0.0 * loss
            else:
                sums.add(part, logprobs)
            if routing is not None:
                balance = balance_term(routing, row, coef=self.config.balance_coef, step_sequences=len(examples))
                own = 0.0 if isinstance(part[0], DummySample) else 1.0
                loss = loss + own * balance.loss
                sums.balance += own * float(balance.metrics["balance_loss"])
            return loss

        own = self._add_gradients(parts, loss_of, _Sums, [encoded.features])
        encoded.backward()
        return _total(self.parallel.exchange(_total(own)))

    def _forward(
        self, part: Sequence[PromptCompletion], images: ImageSet | None, features: torch.Tensor | None
    ) -> tuple[torch.Tensor, PackedRow, Routing | None]:
        """Log-probs `[N]` of a micro-batch's trainable tokens, its row, and what the routers did if that is used."""
        row = pack(part, images)
        routing = family_of(self.model.config).new_routing(keep_scores=True) if self.config.balance_coef else None
        hidden = response_hidden(self.model, row, features, routing=routing)
        return self._head(self.model, hidden, row.targets)[0], row, routing


def _total(every: Sequence[_Sums]) -> _Sums:
    total = _Sums()
    for part in every:
        total.merge(part)
    return total
