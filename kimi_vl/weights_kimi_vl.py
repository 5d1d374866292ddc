"""The hub's tensor names, both ways: how Kimi-VL's checkpoint maps onto transformers' modules and back, bit for bit.

The hub packs the vision tower's q, k and v in one `wqkv` with rotary pairs interleaved; transformers keeps three
matrices in the half-split order. The hub stores each expert apart; transformers stacks them. Everything else is a name.
"""

from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    GroupWeightRename,
    MergeModulelist,
    PermuteForRope,
    WeightConverter,
    WeightRenaming,
)

_BLOCK_IN = r"vision_tower.encoder.blocks.(\d+)."
_BLOCK_OUT = r"vision_tower.encoder.blocks.\1."


def hub_weight_mapping() -> list[WeightConverter | WeightRenaming]:
    """The ordered rules from hub names to ours. Saving runs them backwards, so each one is anchored.

    Dots in the targets of the `wqkv` rule stay escaped: on save a target is a pattern, and `.attn.q_proj` would also
    match the text model's `self_attn.q_proj`.
    """
    return [*_text_and_projector(), *_vision_tower(), *_experts()]


def _text_and_projector() -> list[WeightRenaming]:
    return [
        WeightRenaming(r"^language_model\.model\.", "model.language_model."),
        WeightRenaming(r"^language_model\.lm_head\.", "lm_head."),
        WeightRenaming(r"^multi_modal_projector\.pre_norm\.", "model.mm_projector.pre_norm."),
        WeightRenaming(r"^multi_modal_projector\.linear_1\.", "model.mm_projector.in_proj."),
        WeightRenaming(r"^multi_modal_projector\.linear_2\.", "model.mm_projector.out_proj."),
    ]


def _vision_tower() -> list[WeightConverter | WeightRenaming]:
    embed = "model.vision_tower.patch_embed."
    return [
        WeightRenaming(r"^vision_tower\.patch_embed\.proj\.", f"{embed}proj."),
        WeightRenaming(r"^vision_tower\.patch_embed\.pos_emb\.weight", f"{embed}pos_emb.position_embeddings"),
        WeightRenaming(r"^vision_tower\.encoder\.final_layernorm\.", "model.vision_tower.final_layernorm."),
        GroupWeightRename([_BLOCK_IN + "norm0", _BLOCK_IN + "norm1"], [_BLOCK_OUT + "norm1", _BLOCK_OUT + "norm2"]),
        GroupWeightRename(
            [_BLOCK_IN + "mlp.fc0", _BLOCK_IN + "mlp.fc1"], [_BLOCK_OUT + "mlp.fc1", _BLOCK_OUT + "mlp.fc2"]
        ),
        WeightRenaming(_BLOCK_IN + "wo", _BLOCK_OUT + "attn.proj"),
        WeightRenaming(r"^vision_tower\.encoder\.blocks\.", "model.vision_tower.layers."),
        WeightConverter(
            [r"\.wqkv"],
            [r"\.attn\.q_proj", r"\.attn\.k_proj", r"\.attn\.v_proj"],
            operations=[
                Chunk(dim=0),
                PermuteForRope(subconfig_key="vision_config", permute_layer_names=["q_proj", "k_proj"]),
            ],
        ),
    ]


def _experts() -> list[WeightConverter]:
    return [
        WeightConverter(
            ["mlp.experts.*.gate_proj.weight", "mlp.experts.*.up_proj.weight"],
            "mlp.experts.gate_up_proj",
            operations=[MergeModulelist(dim=0), Concatenate(dim=1)],
        ),
        WeightConverter("mlp.experts.*.down_proj.weight", "mlp.experts.down_proj", operations=[MergeModulelist(dim=0)]),
    ]


def register_hub_weight_mapping() -> None:
    """Tell transformers to use the mapping for `kimi_vl`; calling it twice does no harm."""
    register_checkpoint_conversion_mapping("kimi_vl", hub_weight_mapping(), overwrite=True)
