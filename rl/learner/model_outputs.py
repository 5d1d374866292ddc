"""What the models say of rollouts before an update: log-probs of policy and reference, and the critic's values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from rl.learner.batch import ImageSet, make_micro_batch, pack
from rl.learner.critic import Critic
from rl.learner.forward import encode, response_hidden
from rl.learner.reference_model import ReferenceModel
from rl.learner.router_replay import routing_of
from rl.types import MicroBatch, ModelOutputs, PackedRow, PromptCompletion, Sample
from rollouts.model_family import VisionLanguageModel, family_of
from rollouts.types import Group

LogprobsOf = Callable[[VisionLanguageModel, torch.Tensor, PackedRow], torch.Tensor]


class OutputReader:
    """Runs the models of a step over its micro-batches. A model that the algorithm does not read is not run.

    `logprobs_of(model, hidden, micro)` gives the log-probs `[N]` of the response tokens from the hidden states of a
    model. `wants_policy` says whether the policy's own log-probs are wanted: see `LearnerConfig.reads_old_logprobs`.
    """

    def __init__(
        self,
        policy: VisionLanguageModel,
        reference: ReferenceModel | None,
        critic: Critic | None,
        logprobs_of: LogprobsOf,
        *,
        wants_policy: bool,
    ) -> None:
        self._policy, self._critic, self._logprobs_of = policy, critic, logprobs_of
        self._reference = reference.model if reference is not None else None
        self._wants_policy = wants_policy
        self._runs_policy = wants_policy or (critic is not None and critic.backbone is None)

    @torch.no_grad()
    def read(
        self, samples: Sequence[Sample], parts: Sequence[Sequence[Sample]], images: ImageSet | None
    ) -> dict[str, ModelOutputs]:
        """The outputs `[N]` of each sample's trainable tokens by sample id; `parts` are the micro-batches to run."""
        if not (parts and (self._runs_policy or self._reference is not None or self._critic is not None)):
            return {sample.id: ModelOutputs() for sample in samples}
        of_policy = encode(self._policy, images) if self._runs_policy else None
        of_reference = encode(self._reference, images) if self._reference is not None else None
        of_critic = self._critic.encode(images) if self._critic is not None else None
        found: dict[str, ModelOutputs] = {}
        for part in parts:
            micro = make_micro_batch(part, images)
            columns = self._columns(micro, of_policy, of_reference, of_critic)
            pieces = {name: np.split(c, np.cumsum(micro.lengths.numpy())[:-1]) for name, c in columns.items()}
            for row, sample in enumerate(part):
                found[sample.id] = ModelOutputs(**{name: piece[row] for name, piece in pieces.items()})
        return found

    @torch.no_grad()
    def policy_logprobs(
        self, parts: Sequence[Sequence[PromptCompletion]], images: ImageSet | None
    ) -> dict[str, np.ndarray]:
        """The policy's log-probs `[N]` float32 of each completion's trainable tokens, by its id."""
        features = encode(self._policy, images)
        found: dict[str, np.ndarray] = {}
        for part in parts:
            row = pack(part, images)
            values = self._logprobs_of(self._policy, self._policy_hidden(row, features), row)
            pieces = np.split(values.float().cpu().numpy(), np.cumsum(row.lengths.numpy())[:-1])
            found |= {completion.id: piece for completion, piece in zip(part, pieces, strict=True)}
        return found

    def _policy_hidden(self, row: PackedRow, features: torch.Tensor | None) -> torch.Tensor:
        routing = routing_of(family_of(self._policy.config), row, self._policy.device)
        return response_hidden(self._policy, row, features, routing=routing)

    def _columns(
        self,
        micro: MicroBatch,
        of_policy: torch.Tensor | None,
        of_reference: torch.Tensor | None,
        of_critic: torch.Tensor | None,
    ) -> dict[str, np.ndarray]:
        """The fields of `ModelOutputs` for all response tokens of a micro-batch, from each model's image features."""
        columns: dict[str, torch.Tensor] = {}
        hidden = torch.empty(0)
        if self._runs_policy:
            hidden = self._policy_hidden(micro, of_policy)
        if self._wants_policy:
            columns["policy_logprobs"] = self._logprobs_of(self._policy, hidden, micro)
            # The samples carry these instead of the engine's, so the critic reads them before the update as in it.
            micro = replace(micro, old_logprobs=columns["policy_logprobs"].float().cpu())
        if self._reference is not None:
            reference_hidden = response_hidden(self._reference, micro, of_reference)
            columns["reference_logprobs"] = self._logprobs_of(self._reference, reference_hidden, micro)
        if self._critic is not None:
            columns["values"] = self._critic.values(micro, hidden, of_critic)
        return {name: column.float().cpu().numpy() for name, column in columns.items()}


def unscored_samples(groups: Sequence[Group], min_version: int) -> tuple[list[np.ndarray], list[Sample]]:
    """The mask `[T]` of each rollout's trainable tokens, and samples without advantages of rollouts that have any."""
    rollouts = [m.rollout for group in groups for m in group.rollouts]
    masks = [rollout.completion.mask_from(min_version) for rollout in rollouts]
    samples = [
        Sample(
            id=rollout.id,
            prompt=rollout.prompt,
            token_ids=rollout.completion.token_ids,
            mask=None if mask.all() else mask,
            old_logprobs=rollout.completion.policy_logprobs,
            advantage=0.0,
            experts=rollout.completion.routed_experts,
        )
        for rollout, mask in zip(rollouts, masks, strict=True)
        if mask.any()
    ]
    return masks, samples
