"""One forward pass of any Kimi-VL over a micro-batch: the policy's, the reference's, the critic's."""

from __future__ import annotations

import torch

from kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.packing import PackedLayout
from kimi_vl.routing_kimi_vl import Routing
from rl.batch import ImageSet
from rl.types import PackedRow


class EncodedImages:
    """The images of a step through one model's vision tower, once, whatever the micro-batches.

    Micro-batches read `features`, a leaf; `backward` sends the gradient that they left there through the tower.
    """

    def __init__(self, model: KimiVLForConditionalGeneration, images: ImageSet | None) -> None:
        self._encoded = encode(model, images)
        self.features = self._encoded.detach().requires_grad_() if self._encoded is not None else None

    def backward(self) -> None:
        """Finish the backward pass; nothing happens without images, or where the tower is frozen.

        Features that no micro-batch read have a gradient of 0: on several ranks the tower takes part all the same.
        """
        if self._encoded is None or self.features is None or not self._encoded.requires_grad:
            return
        self._encoded.backward(torch.zeros_like(self.features) if self.features.grad is None else self.features.grad)


def encode(model: KimiVLForConditionalGeneration, images: ImageSet | None) -> torch.Tensor | None:
    """Features of all images of the step, with their graph."""
    if images is None:
        return None
    return model.encode_images(images.pixel_values.to(model.device, model.dtype), images.grids.to(model.device))


def response_hidden(
    model: KimiVLForConditionalGeneration,
    row: PackedRow,
    features: torch.Tensor | None,
    *,
    routing: Routing | None = None,
) -> torch.Tensor:
    """Last hidden states `[N, H]` at the positions that predict the response tokens.

    `routing` tells the routers which experts to take again, and holds what they did.
    """
    device = model.device
    images = features[row.feature_index.to(device)] if features is not None and len(row.feature_index) else None
    embeds = model.embed(row.input_ids[None].to(device), images)
    if torch.is_grad_enabled() and not embeds.requires_grad and not _language_learns(model):
        embeds = embeds.detach().requires_grad_()  # so that a row without images has a backward pass, on every rank
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        position_ids=row.position_ids[None].to(device),
        layout=PackedLayout.of(row.segments, device),
        routing=routing,
        use_cache=False,
    )
    return hidden.last_hidden_state[0, row.predictors.to(device)]


def _language_learns(model: KimiVLForConditionalGeneration) -> bool:
    return any(p.requires_grad for p in (*model.model.language_model.parameters(), *model.lm_head.parameters()))
