"""Direct preference optimization (arXiv:2305.18290) by TRL's DPOTrainer, in the steps and checkpoints of our learners.

TRL computes log-probs, loss and metrics of padded batches; the rest is that of `BaseLearner`. Prompts are those of RL,
images included, and samples keep their token ids: nothing is tokenized again.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from configs.optimizer import OptimizerConfig
from rl.learner.base import BaseLearner
from rl.learner.lora import copy_model
from rl.learner.parallel import SINGLE_PROCESS
from rollouts.model_family import VisionLanguageModel, VisionLanguageProcessor
from rollouts.patches import Patches
from rollouts.types import Prompt

_TRL_METRICS = {  # TRL's names: ours, as in docs/metrics.md
    "rewards/accuracies": "preference_accuracy",
    "rewards/margins": "reward_margin",
    "logps/chosen": "logprob_chosen",
    "logps/rejected": "logprob_rejected",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig:
    """What the learner needs to know of a recipe."""

    optimizer: OptimizerConfig
    total_steps: int  # optimizer steps of the stage, for the schedule
    micro_batch_tokens: int  # padded tokens of one forward pass
    beta: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """A prompt and the token ids `[T]` of two completions, of which the first is preferred."""

    prompt: Prompt
    chosen: np.ndarray
    rejected: np.ndarray

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer completion."""
        return len(self.prompt.input_ids) + max(len(self.chosen), len(self.rejected))


class PreferenceLearner(BaseLearner):
    """Trains `model` on pairs against a frozen copy of itself, in this process. One update is one optimizer step."""

    def __init__(
        self, model: VisionLanguageModel, processor: VisionLanguageProcessor, config: PreferenceConfig, *, folder: Path
    ) -> None:
        self.config = config
        self._pad = int(processor.tokenizer.pad_token_id)
        attention, device = model.text_model.config._attn_implementation, model.device
        reference = copy_model(model).eval().requires_grad_(False)
        super().__init__(
            model,
            optimizer=config.optimizer,
            optimizer_steps=config.total_steps,
            micro_batch_tokens=config.micro_batch_tokens,
            spike_threshold=0.0,
            parallel=SINGLE_PROCESS,
        )
        model.text_model.config._attn_implementation = attention  # TRL pads its batches, it does not pack them
        settings = dict(vars(model.config))
        self._trl = _trainer(model, reference, processor, config, folder)
        model.config.__dict__ = settings  # TRL sets `use_cache: false`, which would stay in the model that is saved
        for part in (model, reference):
            torch.nn.Module.to(part, device)  # TRL takes the first GPU, where a worker may be

    def update(self, pairs: Sequence[PreferencePair]) -> dict[str, float]:
        """One optimizer step on the mean DPO loss over `pairs`. Returns metrics by name.

        Raises UserError after several gradients in a row that are not finite.
        """
        self._begin_update(self.config.seed)
        self.model.train()
        sums: dict[str, float] = defaultdict(float)
        for part in _parts(pairs, self.config.micro_batch_tokens):
            share = len(part) / len(pairs)
            with warnings.catch_warnings():  # TRL 1.16 asks by an old name, once a pass
                warnings.filterwarnings("ignore", ".*is_gradient_checkpointing. is deprecated", FutureWarning)
                loss = share * self._trl.compute_loss(self.model, self.collate(part))
            sums["loss"] += float(loss.detach())
            own = self._trl._metrics["train"]
            for theirs, name in _TRL_METRICS.items():
                sums[name] += share * own[theirs][-1]
            own.clear()
            loss.backward()
        return {
            **sums,
            **self._end_update(),
            "tokens": float(sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)),
        }

    def collate(self, pairs: Sequence[PreferencePair]) -> dict[str, torch.Tensor]:
        """What TRL's loss reads: all chosen completions, then all rejected ones, `[2 B, longest]`, padded at the end.

        The images stand twice, once for each half.
        """
        rows = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
        shape = (len(rows), max(len(prompt.input_ids) + len(own) for prompt, own in rows))
        input_ids = torch.full(shape, self._pad)
        attention_mask, completion_mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for row, (prompt, own) in enumerate(rows):
            start, stop = len(prompt.input_ids), len(prompt.input_ids) + len(own)
            input_ids[row, :stop] = torch.from_numpy(np.concatenate([prompt.input_ids, own]))
            attention_mask[row, :stop] = 1
            completion_mask[row, start:stop] = 1
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "completion_mask": completion_mask}
        grids = np.concatenate([prompt.image_grid_hws for prompt, _ in rows])
        if len(grids):
            patches = Patches.join([prompt.patches for prompt, _ in rows]).floats()
            batch |= {"pixel_values": torch.from_numpy(patches).to(self.model.dtype)}
            batch |= {"image_grid_hws": torch.from_numpy(grids)}
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}

    def close(self) -> None:
        """Give the model back its own forward pass, which TRL replaced."""
        self.model.__dict__.pop("forward", None)


def _parts(pairs: Sequence[PreferencePair], budget: int) -> list[list[PreferencePair]]:
    """Pairs of similar length together, in parts of at most `budget` padded tokens; a part has at least one pair."""
    parts: list[list[PreferencePair]] = []
    for pair in sorted(pairs, key=lambda pair: pair.longest, reverse=True):
        if parts and 2 * (len(parts[-1]) + 1) * parts[-1][0].longest <= budget:
            parts[-1].append(pair)
        else:
            parts.append([pair])
    return parts


def _trainer(
    model: VisionLanguageModel,
    reference: VisionLanguageModel,
    processor: Any,
    config: PreferenceConfig,
    folder: Path,
) -> DPOTrainer:
    """TRL's trainer, of which we call `compute_loss`: the sigmoid loss of the paper."""
    arguments = DPOConfig(
        output_dir=str(folder),
        beta=config.beta,
        use_cpu=model.device.type == "cpu",
        bf16=False,  # the model has its type already
        activation_checkpointing=False,  # `model.gradient_checkpointing` has switched it on, or not
        router_aux_loss_coef=0.0,  # the routers' bias is fixed in post-training
        max_length=None,
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # else TRL refuses a machine with several GPUs
    # TRL's own loop would read this row; the columns say that samples have images.
    row = Dataset.from_list([{"images": [], "prompt": "", "chosen": "", "rejected": ""}])
    return DPOTrainer(model=model, ref_model=reference, args=arguments, train_dataset=row, processing_class=processor)
