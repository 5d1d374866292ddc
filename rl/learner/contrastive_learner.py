"""The learner of a `vit` stage: image-text pairs train the vision tower alone (arXiv:2504.07491 §2.3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from configs.optimizer import OptimizerConfig
from rl.algorithms.contrastive import same_captions, sigmoid_contrastive_loss
from rl.learner.base import BaseLearner
from rl.learner.batch import collect_images
from rl.learner.forward import EncodedImages
from rl.learner.image_text_model import Captions, ImageTextModel, PaddedPatches
from rl.learner.logprobs import token_logprobs
from rl.learner.parallel import SINGLE_PROCESS
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveConfig:
    """What the learner needs to know of a recipe."""

    optimizer: OptimizerConfig
    total_steps: int  # optimizer steps of the stage, for the schedule
    batch_size: int  # pairs in a step
    first_token: int  # begins every caption for the decoder
    max_tokens: int  # of the longest caption
    micro_batch_tokens: int = 16_384  # patches of one pass of the tower
    caption_coef: float = 2.0
    text_layers: int = 2
    seed: int = 0


class ContrastiveLearner(BaseLearner):
    """Trains the tower of `model`, with text modules of its own, in this process. One update is one optimizer step.

    The loss is SigLIP's plus `caption_coef` times the captions' cross-entropy. Projector and language model stay as
    they are. Each example is a prompt with one image, whose task has the caption as its answer, and the caption's
    tokens.
    """

    def __init__(self, model: VisionLanguageModel, config: ContrastiveConfig) -> None:
        self.config = config
        self._pairs = ImageTextModel(
            model.vision_tower,
            width=model.config.vision_config.hidden_size,
            layers=config.text_layers,
            vocabulary=model.config.text_config.vocab_size,
            first_token=config.first_token,
            max_tokens=config.max_tokens,
            batch_size=config.batch_size,
        ).to(model.device)
        super().__init__(
            model,
            optimizer=config.optimizer,
            optimizer_steps=config.total_steps,
            micro_batch_tokens=config.micro_batch_tokens,
            spike_threshold=0.0,
            parallel=SINGLE_PROCESS,
        )

    @property
    def trained(self) -> ImageTextModel:
        """The tower with its text modules."""
        return self._pairs

    def update(self, examples: Sequence[PromptCompletion]) -> dict[str, float]:
        """One optimizer step on the pairs of `examples`. Returns metrics by name.

        Without an example the step is not made, but the learning rate moves on. Raises UserError after several
        gradients in a row that are not finite.
        """
        self._begin_update(self.config.seed)
        self.trained.train()
        metrics = self._accumulate(examples) if examples else {}
        applied = self._end_update()
        return metrics | {
            "scale": float(self.trained.log_scale.detach().exp()),
            "bias": float(self.trained.bias.detach()),
            **applied,
            "pairs": float(len(examples)),
            "patches": float(sum(int(example.prompt.image_grid_hws.prod(-1).sum()) for example in examples)),
        }

    def _accumulate(self, examples: Sequence[PromptCompletion]) -> dict[str, float]:
        """Add the gradient of the loss over all pairs to the gradients."""
        pairs, encoded = self.trained, self._encode(examples)
        patches, captions = _patches(encoded, examples), self._captions(examples)
        images, texts = pairs.embed_images(patches), pairs.embed_texts(captions)
        same = same_captions([example.prompt.task.answer for example in examples]).to(images.device)
        contrastive = sigmoid_contrastive_loss(images, texts, same, log_scale=pairs.log_scale, bias=pairs.bias)
        caption = self._caption_loss(captions, patches)
        loss = contrastive + self.config.caption_coef * caption
        loss.backward()
        encoded.backward()
        nearest = (images @ texts.T).detach().argmax(1)
        return {
            "loss": float(loss.detach()),
            "contrastive_loss": float(contrastive.detach()),
            "caption_loss": float(caption.detach()),
            "batch_recall": float(same.gather(1, nearest[:, None]).double().mean()),
        }

    def _caption_loss(self, captions: Captions, patches: PaddedPatches) -> torch.Tensor:
        """Mean cross-entropy of the captions' tokens."""
        own = ~captions.padding
        states, head = self.trained.caption_states(captions, patches)[own], self.trained.embed_tokens.weight
        none = torch.zeros(len(head), dtype=torch.bool, device=head.device)
        return -token_logprobs(states, head, captions.ids[own], temperature=1.0, barred=none)[0].mean()

    @torch.no_grad()
    def embed(self, examples: Sequence[PromptCompletion]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings `[N, W]` of norm 1 of the examples' images, and of their captions."""
        self.trained.eval()
        patches = _patches(self._encode(examples), examples)
        return self.trained.embed_images(patches), self.trained.embed_texts(self._captions(examples))

    def _encode(self, examples: Sequence[PromptCompletion]) -> EncodedImages:
        images = collect_images(examples, self.model.config, budget=self.config.micro_batch_tokens)
        return EncodedImages(self.model, images, self.parallel, encoder=self.model.encode_patches)

    def _captions(self, examples: Sequence[PromptCompletion]) -> Captions:
        return Captions.of([torch.from_numpy(example.token_ids) for example in examples], self.model.device)


def _patches(encoded: EncodedImages, examples: Sequence[PromptCompletion]) -> PaddedPatches:
    assert encoded.features is not None, "every example has an image"
    grids = torch.from_numpy(np.concatenate([example.prompt.image_grid_hws for example in examples]))
    return PaddedPatches.of(encoded.features.float(), grids)
