"""The hub's tensor names: at full size on the meta device, and a round trip that is equal bit for bit."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from kimi_vl import KimiVLConfig, KimiVLForConditionalGeneration, hub_state_dict, load_model

TEXT, VISION = "language_model.model.", "vision_tower.encoder.blocks."

HUB_SHAPES = {
    "vision_tower.patch_embed.proj.weight": (1152, 3, 14, 14),
    "vision_tower.patch_embed.pos_emb.weight": (64, 64, 1152),
    "vision_tower.encoder.final_layernorm.bias": (1152,),
    f"{VISION}26.norm0.weight": (1152,),
    f"{VISION}0.norm1.bias": (1152,),
    f"{VISION}0.wqkv.weight": (3456, 1152),
    f"{VISION}0.wqkv.bias": (3456,),
    f"{VISION}0.wo.weight": (1152, 1152),
    f"{VISION}0.mlp.fc0.weight": (4304, 1152),
    f"{VISION}0.mlp.fc1.weight": (1152, 4304),
    "multi_modal_projector.pre_norm.weight": (1152,),
    "multi_modal_projector.linear_1.weight": (4608, 4608),
    "multi_modal_projector.linear_2.weight": (2048, 4608),
    "multi_modal_projector.linear_2.bias": (2048,),
    f"{TEXT}embed_tokens.weight": (163840, 2048),
    f"{TEXT}layers.26.input_layernorm.weight": (2048,),
    f"{TEXT}layers.0.self_attn.q_proj.weight": (3072, 2048),
    f"{TEXT}layers.0.self_attn.kv_a_proj_with_mqa.weight": (576, 2048),
    f"{TEXT}layers.0.self_attn.kv_a_layernorm.weight": (512,),
    f"{TEXT}layers.0.self_attn.kv_b_proj.weight": (4096, 512),
    f"{TEXT}layers.0.self_attn.o_proj.weight": (2048, 2048),
    f"{TEXT}layers.0.mlp.gate_proj.weight": (11264, 2048),
    f"{TEXT}layers.0.mlp.down_proj.weight": (2048, 11264),
    f"{TEXT}layers.1.mlp.gate.weight": (64, 2048),
    f"{TEXT}layers.26.mlp.gate.e_score_correction_bias": (64,),
    f"{TEXT}layers.26.mlp.experts.63.up_proj.weight": (1408, 2048),
    f"{TEXT}layers.1.mlp.experts.0.down_proj.weight": (2048, 1408),
    f"{TEXT}layers.1.mlp.shared_experts.gate_proj.weight": (2816, 2048),
    f"{TEXT}norm.weight": (2048,),
    "language_model.lm_head.weight": (163840, 2048),
}


@pytest.fixture(scope="module")
def full_size():
    with torch.device("meta"):
        return KimiVLForConditionalGeneration(KimiVLConfig())


def test_full_size_has_the_hubs_number_of_parameters(full_size):
    router_bias = sum(buffer.numel() for name, buffer in full_size.named_buffers() if "e_score" in name)
    assert router_bias == 26 * 64
    assert sum(p.numel() for p in full_size.parameters()) + router_bias == 16_407_656_048
    assert sum(p.numel() for p in full_size.model.vision_tower.parameters()) == 416_866_032
    assert sum(p.numel() for p in full_size.model.mm_projector.parameters()) == 30_679_808


def test_full_size_has_the_hubs_names_and_shapes(full_size):
    names = hub_state_dict(full_size)
    assert len(names) == 5652
    counts = {prefix: sum(name.startswith(prefix) for name in names) for prefix in ("language", "vision", "multi")}
    assert counts == {"language": 5317, "vision": 329, "multi": 6}
    for name, shape in HUB_SHAPES.items():
        assert tuple(names[name].shape) == shape, name


def test_every_full_size_name_is_of_a_known_kind(full_size):
    kinds = {re.sub(r"\.\d+\.", ".N.", name).rsplit(".", 1)[0] for name in hub_state_dict(full_size)}
    known = {re.sub(r"\.\d+\.", ".N.", name).rsplit(".", 1)[0] for name in HUB_SHAPES}
    siblings = {"experts.N.gate_proj", "shared_experts.up_proj", "shared_experts.down_proj", "mlp.up_proj"}
    left = {kind for kind in kinds - known if not any(kind.endswith(name) for name in siblings)}
    assert left == {f"{TEXT}layers.N.post_attention_layernorm"}


def test_loading_and_saving_gives_back_every_bit(folder, tensors, tmp_path):
    load_model(folder).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(saved[name], tensors[name])] == []


def test_hub_state_dict_equals_the_file(model, tensors):
    state = hub_state_dict(model)
    assert state.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(state[name], tensors[name])] == []


def test_bfloat16_keeps_the_router_bias_in_float32(folder, tensors, tmp_path):
    model = load_model(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    for name, tensor in tensors.items():
        wanted = tensor if "e_score_correction_bias" in name else tensor.bfloat16()
        assert torch.equal(saved[name], wanted), name


def test_a_missing_tensor_is_an_error(folder, tensors, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    fewer = {name: tensor for name, tensor in tensors.items() if "blocks.1.wqkv.bias" not in name}
    save_file(fewer, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 3 of the model's tensors, such as .*layers\.1\.attn\.k_proj\.bias"):
        load_model(tmp_path)
