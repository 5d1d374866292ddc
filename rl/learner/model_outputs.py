"""Outputs of the models before an update: log-probs of the policy and the reference, and the critic's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rl.learner.batch import old_logprobs, pack
from rl.learner.critic import Critic
from rl.learner.forward import encode, response_hidden
from rl.learner.parallel import Parallel
from rl.learner.reference_model import ReferenceModel
from rl.learner.router_replay import routing_of
from rl.types import DummySample, ModelOutputs, PackedRow, PromptCompletion, SampledCompletion, SampleHeader
from rollouts.model_family import VisionLanguageModel, family_of
from rollouts.types import Group


class OutputReader:
    """Runs the models of a step over its micro-batches. A model that the algorithm does not read is not run.

    `plan(samples)` and `head(model, hidden, targets)` are the methods `plan` and `token_logprobs` of `parallel` with
    their options bound. `wants_policy` is `LearnerConfig.reads_old_logprobs`.
    """

    def __init__(
        self,
        policy: VisionLanguageModel,
        reference: ReferenceModel | None,
        critic: Critic | None,
        parallel: Parallel,
        *,
        plan: Callable[..., Any],
        head: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        wants_policy: bool,
    ) -> None:
        self._policy, self._critic = policy, critic
        self._parallel, self._plan, self._head = parallel, plan, head
        self._reference = reference.model if reference is not None else None
        self._wants_policy = wants_policy
        self._runs_policy = wants_policy or (critic is not None and critic.backbone is None)

    @torch.no_grad()
    def read(self, samples: Sequence[SampledCompletion | SampleHeader]) -> dict[str, ModelOutputs]:
        """The outputs of this process's share of the samples, by id; `[N]` float32, for the trainable tokens."""
        if not (samples and (self._runs_policy or self._reference is not None or self._critic is not None)):
            return {sample.id: ModelOutputs() for sample in samples}
        parts, images = self._plan(samples)
        of_policy = encode(self._policy, images) if self._runs_policy else None
        of_reference = encode(self._reference, images) if self._reference is not None else None
        of_critic = self._critic.encode(images) if self._critic is not None else None
        found: dict[str, ModelOutputs] = {}
        for part in parts:
            row = pack(part, images)
            columns = self._columns(row, old_logprobs(part), of_policy, of_reference, of_critic)
            pieces = {name: _by_sample(column, row) for name, column in columns.items()}
            for at, sample in enumerate(part):
                if isinstance(sample, DummySample):
                    continue
                found[sample.id] = ModelOutputs(**{name: piece[at] for name, piece in pieces.items()})
        return found

    @torch.no_grad()
    def policy_logprobs(self, completions: Sequence[PromptCompletion]) -> list[np.ndarray]:
        """The policy's log-probs `[N]` float32 of each completion's trainable tokens."""
        parts, images = self._plan(completions)
        features = encode(self._policy, images)
        found: dict[str, np.ndarray] = {}
        for part in parts:
            row = pack(part, images)
            values, _ = self._head(self._policy, self._policy_hidden(row, features), row.targets)
            pieces = _by_sample(values.float().cpu().numpy(), row)
            found |= {completion.id: piece for completion, piece in zip(part, pieces, strict=True)}
        own = {completion.id: found[completion.id] for completion in completions if completion.id in found}
        every = {key: value for part in self._parallel.exchange(own) for key, value in part.items()}
        return [every[completion.id] for completion in completions]

    def _policy_hidden(self, row: PackedRow, features: torch.Tensor | None) -> torch.Tensor:
        routing = routing_of(family_of(self._policy.config), row, self._policy.device)
        return response_hidden(self._policy, row, features, routing=routing)

    def _columns(
        self,
        row: PackedRow,
        logprobs: torch.Tensor,
        of_policy: torch.Tensor | None,
        of_reference: torch.Tensor | None,
        of_critic: torch.Tensor | None,
    ) -> dict[str, np.ndarray]:
        """The fields of `ModelOutputs` for all response tokens of a micro-batch, from each model's image features.

        `logprobs` `[N]` are the samples' own.
        """
        columns: dict[str, torch.Tensor] = {}
        hidden = torch.empty(0)
        if self._runs_policy:
            hidden = self._policy_hidden(row, of_policy)
        if self._wants_policy:
            columns["policy_logprobs"] = self._head(self._policy, hidden, row.targets)[0]
            # The samples carry these instead of the engine's, so the critic reads them before the update as in it.
            logprobs = columns["policy_logprobs"].float().cpu()
        if self._reference is not None:
            reference_hidden = response_hidden(self._reference, row, of_reference)
            columns["reference_logprobs"] = self._head(self._reference, reference_hidden, row.targets)[0]
        if self._critic is not None:
            columns["values"] = self._critic.values(row, logprobs, hidden, of_critic)
        return {name: column.float().cpu().numpy() for name, column in columns.items()}


def _by_sample(values: np.ndarray, row: PackedRow) -> list[np.ndarray]:
    """The values `[N]` of a packed row, cut into those of each sample."""
    return np.split(values, np.cumsum(row.lengths.numpy())[:-1])


def sampled_completions(groups: Sequence[Group], min_version: int) -> tuple[list[np.ndarray], list[SampledCompletion]]:
    """The mask `[T]` of each rollout's trainable tokens, and the completions of the rollouts that have any."""
    rollouts = [m.rollout for group in groups for m in group.rollouts]
    masks = [rollout.completion.mask_from(min_version) for rollout in rollouts]
    samples = [
        SampledCompletion(
            id=rollout.id,
            prompt=rollout.prompt,
            token_ids=rollout.completion.token_ids,
            mask=None if mask.all() else mask,
            old_logprobs=rollout.completion.policy_logprobs,
            experts=rollout.completion.routed_experts,
        )
        for rollout, mask in zip(rollouts, masks, strict=True)
        if mask.any()
    ]
    return masks, samples


def outputs_of_groups(
    groups: Sequence[Group], masks: Sequence[np.ndarray], parts: Sequence[Mapping[str, ModelOutputs]]
) -> list[list[ModelOutputs]]:
    """The outputs `[T]` of each rollout of each group, from what each process found and the masks of the rollouts."""
    found = {key: outputs for part in parts for key, outputs in part.items()}
    mask = iter(masks)
    return [[_outputs_of(found, member.rollout.id, next(mask)) for member in group.rollouts] for group in groups]


def _outputs_of(found: Mapping[str, ModelOutputs], key: str, mask: np.ndarray) -> ModelOutputs:
    return found[key].spread(mask) if mask.any() else ModelOutputs()
