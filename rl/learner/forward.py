"""One forward pass of any model over a micro-batch: the policy's, the reference's, the critic's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rl.learner.batch import ImageSet
from rl.learner.gradient_sums import summing_dtype
from rl.learner.packed_attention import PackedLayout
from rl.learner.parallel import Parallel
from rl.types import PackedRow
from rollouts.model_family import Routing, VisionLanguageModel

Encoder = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # patches `[P, *patch_shape]`, grids `[N, 2]`


class EncodedImages:
    """The images of a step, encoded once by one model's vision tower for all micro-batches.

    Micro-batches read the leaf `features` `[T, H]`; `backward` sends the gradient that they leave there through the
    tower. With several parts of images no activations are kept: `backward` encodes each part again. `encoder` takes
    patches and grids; without it, it is `model.encode_images`.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        images: ImageSet | None,
        parallel: Parallel,
        *,
        encoder: Encoder | None = None,
    ) -> None:
        self._model, self._images, self._parallel = model, images, parallel
        self._encoder = encoder or model.encode_images
        self._learns = torch.is_grad_enabled() and _tower_learns(model)
        with torch.set_grad_enabled(self._learns and images is not None and len(images.parts) == 1):
            self._encoded = encode(model, images, self._encoder)
        self.features = None
        if self._encoded is not None:  # micro-batches add up their gradients in the type of this leaf
            self.features = self._encoded.detach().to(summing_dtype(self._encoded.dtype)).requires_grad_()

    def backward(self) -> None:
        """Finish the backward pass. Without images, or with a frozen tower, nothing is done.

        Features that no micro-batch read have a gradient of 0: the towers of all ranks must run.
        """
        if self._images is None or self._encoded is None or self.features is None or not self._learns:
            return
        gradient = torch.zeros_like(self.features) if self.features.grad is None else self.features.grad
        if self._encoded.requires_grad:
            self._encoded.backward(gradient.to(self._encoded.dtype))
            return
        start = 0
        for i, part in enumerate(self._images.parts, start=1):
            self._parallel.before_backward(last=i == len(self._images.parts))
            again = _encode_part(self._model, self._images, part, self._encoder)
            again.backward(gradient[start : start + len(again)].to(again.dtype))
            start += len(again)


def encode(model: VisionLanguageModel, images: ImageSet | None, encoder: Encoder | None = None) -> torch.Tensor | None:
    """Features `[T, H]` of all images of the step, with their graph; None without images. See `EncodedImages`."""
    if images is None:
        return None
    return torch.cat([_encode_part(model, images, part, encoder or model.encode_images) for part in images.parts])


def _encode_part(model: VisionLanguageModel, images: ImageSet, part: slice, encoder: Encoder) -> torch.Tensor:
    """Features of a part. An empty part has none, but runs the tower on a grey image."""
    patches, grids = images.part(part)
    features = encoder(patches.to(model.device, model.dtype), grids.to(model.device))
    return features if part.start < part.stop else features[:0]


def response_hidden(
    model: VisionLanguageModel,
    row: PackedRow,
    features: torch.Tensor | None,
    *,
    routing: Routing | None = None,
) -> torch.Tensor:
    """Last hidden states `[N, H]` at the positions that predict the response tokens.

    `routing` holds the experts to replay, and then what the routers did.
    """
    device = model.device
    images = features[row.feature_index.to(device)] if features is not None and len(row.feature_index) else None
    embeds = model.embed(row.input_ids[None].to(device), images)
    if torch.is_grad_enabled() and not embeds.requires_grad:
        # A row without images, with frozen embeddings: all ranks pass backward through the same layers in one order.
        embeds = embeds.detach().requires_grad_()
    hidden = model.text_model(
        inputs_embeds=embeds,
        position_ids=row.position_ids[None].to(device),
        layout=PackedLayout.of(row.segments, device),
        routing=routing,
        use_cache=False,
    )
    return hidden.last_hidden_state[0, row.predictors.to(device)]


def _tower_learns(model: VisionLanguageModel) -> bool:
    return any(p.requires_grad for part in model.vision_modules for p in part.parameters())
