"""Kimi-VL: MoonViT, a two-layer projector and a DeepSeek-V3 text model, built from transformers' own parts.

Shapes: `P` patches of all images together, `N` images, `T` image tokens (a quarter of the patches), `B` rows, `L`
tokens a row, `H` the text model's width, `V` the vocabulary.

Source: Kimi-VL technical report (arXiv:2504.07491) section 2.1 and figure 3; the vision tower and projector are
transformers' Kimi-K2.5 modules, whose single-frame case is MoonViT.
"""

from typing import Any

import torch
from torch import nn
from transformers import DeepseekV3Config, GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Model
from transformers.models.kimi_k25.modeling_kimi_k25 import (
    Kimi_K25Model,
    Kimi_K25MultimodalProjection,
    Kimi_K25PreTrainedModel,
    Kimi_K25VisionModel,
)

from .attention_kimi_vl import LatentAttention, PackedVisionAttention
from .configuration_kimi_vl import KimiVLConfig, MoonViTConfig
from .norm_kimi_vl import take_norms
from .routing_kimi_vl import take_routing
from .weights_kimi_vl import register_hub_weight_mapping

register_hub_weight_mapping()


def grid_thw(image_grid_hws: torch.Tensor) -> torch.Tensor:
    """(N, 2) patches down and across -> (N, 3) with one frame in front, as the vision tower counts."""
    return torch.nn.functional.pad(image_grid_hws, (1, 0), value=1)


def _images_of_rows(grids: torch.Tensor, tokens: list[int], merge_shape: tuple[int, int]) -> list[list[int]]:
    """The numbers of each row's images; `tokens` are the image tokens of each row, which the images fill in order."""
    sizes = (grids.prod(-1) // (merge_shape[0] * merge_shape[1])).tolist()
    rows: list[list[int]] = []
    image = 0
    for wanted in tokens:
        first = image
        while image < len(sizes) and sum(sizes[first : image + 1]) <= wanted:
            image += 1
        rows.append(list(range(first, image)))
        if sum(sizes[first:image]) != wanted:
            raise ValueError(f"row {len(rows) - 1} has {wanted} image placeholders, which no whole images fill")
    return rows


class _ExpertsChoice:
    """Makes `experts_implementation=` and `set_experts_implementation` work."""

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # transformers looks for its decorator in this file, and the experts live in the text model's.
        return True


class KimiVLPreTrainedModel(_ExpertsChoice, Kimi_K25PreTrainedModel):
    """What the model classes share: config class, prefix of the weights, supported attention kernels."""

    config_class = KimiVLConfig
    config: KimiVLConfig
    input_modalities = ("image", "text")
    _no_split_modules = ["Kimi_K25VisionEncoderLayer", "KimiVLDecoderLayer"]  # noqa: RUF012


class MoonViT(KimiVLPreTrainedModel, Kimi_K25VisionModel):
    """The vision tower: (P, 3, 14, 14) pixels of all images in a row -> (T, 4, width) merged patches."""

    config_class = MoonViTConfig
    config: MoonViTConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.layers:
            layer.attn = PackedVisionAttention(config)
        self.post_init()


class KimiVLTextModel(_ExpertsChoice, DeepseekV3Model):
    """The text model: transformers' DeepSeek-V3 with an attention that decodes from the latent cache."""

    _no_split_modules = ["KimiVLDecoderLayer"]  # noqa: RUF012

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__(config)
        for index, layer in enumerate(self.layers):
            layer.self_attn = LatentAttention(config, index)
            take_routing(layer)  # `routing=` replays and observes the choice of experts
        take_norms(self)
        self.post_init()


class KimiVLModel(KimiVLPreTrainedModel, Kimi_K25Model):
    """Images and text to hidden states (no vocabulary head)."""

    def __init__(self, config: KimiVLConfig) -> None:
        # Past Kimi_K25Model's own constructor, which would build its video tower first.
        super(Kimi_K25Model, self).__init__(config)
        self.vision_tower = MoonViT._from_config(config.vision_config)
        self.language_model = KimiVLTextModel._from_config(config.text_config)
        self.mm_projector = Kimi_K25MultimodalProjection(config)
        self.post_init()

    def get_image_features(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, pixel_values: torch.Tensor, image_grid_hws: torch.Tensor, **kwargs: Any
    ) -> Any:
        """Encode images; `pooler_output` of the result is a tuple of N tensors (tokens of the image, H).

        `pixel_values` is (P, 3, 14, 14), `image_grid_hws` (N, 2): patches down and across of each image. Raises
        ValueError if the grids do not add up to P.
        """
        if pixel_values.shape[0] != int(image_grid_hws.prod(-1).sum()):
            raise ValueError(
                f"pixel_values holds {pixel_values.shape[0]} patches, but image_grid_hws {image_grid_hws.tolist()} "
                f"needs {int(image_grid_hws.prod(-1).sum())}: pass both as the image processor returned them"
            )
        pixel_values = pixel_values.to(self.vision_tower.dtype)
        grids: Any = grid_thw(image_grid_hws)
        return super().get_image_features(pixel_values, grids, **kwargs)

    def encode_images(self, pixel_values: torch.Tensor, image_grid_hws: torch.Tensor) -> torch.Tensor:
        """(P, 3, 14, 14) pixels and (N, 2) grids -> (T, H) features in image order; samples may share them."""
        return torch.cat(self.get_image_features(pixel_values, image_grid_hws, return_dict=True).pooler_output)

    def embed(self, input_ids: torch.Tensor, image_features: torch.Tensor | None = None) -> torch.Tensor:
        """(B, L) ids and (T, H) features -> (B, L, H) inputs; features fill the placeholders in reading order.

        Raises ValueError if the number of placeholders in `input_ids` is not T.
        """
        placeholder = input_ids == self.config.media_placeholder_token_id
        embeddings = self.language_model.embed_tokens(input_ids.masked_fill(placeholder, 0))
        wanted, given = int(placeholder.sum()), 0 if image_features is None else image_features.shape[0]
        if wanted != given:
            raise ValueError(
                f"{wanted} image placeholders in input_ids, but {given} image features: each image needs one "
                "placeholder per feature, as the processor writes them"
            )
        if image_features is None or not wanted:
            return embeddings
        return embeddings.masked_scatter(placeholder.unsqueeze(-1), image_features.to(embeddings.dtype))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_hws: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """(B, L) ids, with the images in reading order over the rows, or (B, L, H) `inputs_embeds` -> (B, L, H)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        features = None
        if pixel_values is not None:
            if image_grid_hws is None or input_ids is None:
                raise ValueError("pixel_values need image_grid_hws and input_ids; inputs_embeds hold images already")
            features = self.encode_images(pixel_values, image_grid_hws)
        if input_ids is not None:
            inputs_embeds = self.embed(input_ids, features)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class KimiVLForConditionalGeneration(KimiVLPreTrainedModel, GenerationMixin):
    """Kimi-VL with its vocabulary head: the class to train, to sample from and to save."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: KimiVLConfig) -> None:
        super().__init__(config)
        self.model = KimiVLModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @property
    def text_model(self) -> KimiVLTextModel:
        """The language model: embeddings to hidden states, without the head."""
        return self.model.language_model

    @property
    def vision_tower(self) -> MoonViT:
        """The vision tower, without the projector."""
        return self.model.vision_tower

    @property
    def vision_modules(self) -> tuple[nn.Module, ...]:
        """All modules that turn patches into image features."""
        return (self.model.vision_tower, self.model.mm_projector)

    def shard_units(self) -> list[nn.Module]:
        """The modules to shard, inner before outer, without the model itself. Tied weights belong to the model."""
        text, tower = self.model.language_model, self.model.vision_tower
        tied = self.lm_head.weight is text.embed_tokens.weight
        ends = [] if tied else [text.embed_tokens, self.lm_head]
        return [*tower.layers, tower, self.model.mm_projector, *text.layers, *ends, text.norm]

    def get_image_features(self, pixel_values: torch.Tensor, image_grid_hws: torch.Tensor, **kwargs: Any) -> Any:
        """See `KimiVLModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, image_grid_hws, **kwargs)

    def encode_images(self, pixel_values: torch.Tensor, image_grid_hws: torch.Tensor) -> torch.Tensor:
        """(P, 3, 14, 14) pixels and (N, 2) grids -> (T, H) features; see `KimiVLModel.encode_images`."""
        return self.model.encode_images(pixel_values, image_grid_hws)

    def encode_patches(self, pixel_values: torch.Tensor, image_grid_hws: torch.Tensor) -> torch.Tensor:
        """(P, 3, 14, 14) pixels and (N, 2) grids -> (P, width): the tower's features, neither merged nor projected."""
        return self.vision_tower(pixel_values.to(self.vision_tower.dtype), grid_thw(image_grid_hws)).last_hidden_state

    def embed(self, input_ids: torch.Tensor, image_features: torch.Tensor | None = None) -> torch.Tensor:
        """(B, L) ids and (T, H) features -> (B, L, H) `inputs_embeds`; see `KimiVLModel.embed`."""
        return self.model.embed(input_ids, image_features)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Repeat every row `expand_size` times with all of its images, for several sequences or beams.

        transformers would repeat each patch instead, which mixes the images of different rows.
        """
        pixels, grids = kwargs.pop("pixel_values", None), kwargs.pop("image_grid_hws", None)
        if pixels is not None and input_ids is not None:
            counts = (input_ids == self.config.media_placeholder_token_id).sum(-1)
            images = _images_of_rows(grids, counts.tolist(), self.config.merge_shape)
            pieces = pixels.split(grids.prod(-1).tolist())
            order = [image for row in images for _ in range(expand_size) for image in row]
            pixels, grids = torch.cat([pieces[image] for image in order]), grids[order]
        parent: Any = super()
        input_ids, kwargs = parent._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, kwargs | ({} if pixels is None else {"pixel_values": pixels, "image_grid_hws": grids})

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_hws: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """Logits (B, L or `logits_to_keep`, V), and the next-token loss if `labels` (B, L; -100 is left out) are given.

        `logits_to_keep` is the number of last positions, 0 for all, or an index tensor of positions.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            pixel_values=pixel_values,
            image_grid_hws=image_grid_hws,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.text_config.vocab_size, **kwargs)
        return MoeCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.get("router_logits"),
        )


__all__ = ["KimiVLForConditionalGeneration", "KimiVLModel", "KimiVLPreTrainedModel", "MoonViT"]
