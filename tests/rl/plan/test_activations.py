"""The counted activations are those that autograd keeps; those of Kimi-VL-A3B are computed by hand."""

import pytest
import torch

from kimi_vl import TinySizes
from kimi_vl.tiny import build_tiny_model, tiny_config
from rl.learner.packed_attention import PackedLayout, PackedSegment, use_packed_attention
from rl.plan import activations

TOKENS, PATCHES = 256, 256
SIZES = TinySizes(
    hidden_size=256,
    num_hidden_layers=2,
    num_attention_heads=8,
    n_routed_experts=16,
    num_experts_per_tok=4,
    n_shared_experts=2,
    moe_intermediate_size=160,
    intermediate_size=900,
    kv_lora_rank=48,
    v_head_dim=20,
)


def kept(model, forward):
    """Bytes of the distinct tensors that the backward pass of `forward` needs, without the model's own weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor stays, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    del output
    return sum(size for size, _ in found.values())


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def model(request):
    made = build_tiny_model(tiny_config(SIZES, num_tokens=300), seed=0).train().to(request.param)
    use_packed_attention(made.text_model)
    return made


@pytest.mark.parametrize("layer", [0, 1], ids=["dense", "experts"])
def test_a_decoder_layer_keeps_what_is_counted(model, layer):
    text, b = model.config.text_config, model.dtype.itemsize
    hidden = torch.randn(1, TOKENS, text.hidden_size, dtype=model.dtype, requires_grad=True)
    positions = torch.arange(TOKENS)[None]
    rotary = model.text_model.rotary_emb(hidden, position_ids=positions)
    layout = PackedLayout.of([PackedSegment(start=0, length=TOKENS)])
    found = kept(
        model,
        lambda: model.text_model.layers[layer](
            hidden, attention_mask=None, position_ids=positions, position_embeddings=rotary, layout=layout
        ),
    )
    counted = TOKENS * activations.layer_bytes(text, layer, b, flash=False)
    assert counted + activations.score_bytes(text, [(TOKENS, TOKENS)]) == pytest.approx(found, rel=0.03)


def test_the_tower_keeps_what_is_counted(model):
    pixels, grids = torch.randn(PATCHES, 3, 14, 14, dtype=model.dtype), torch.tensor([[8, 8]] * 4)
    found = kept(model, lambda: model.encode_images(pixels, grids))
    vision, b = model.config.vision_config, model.dtype.itemsize
    counted = activations.vision_bytes(vision, PATCHES, b, checkpointing=False)
    assert counted == pytest.approx(found, rel=0.25)  # a tower of two blocks: patch embedding and projector count too


def test_a_token_of_kimi_vl_by_hand():
    from kimi_vl import KimiVLConfig

    text = KimiVLConfig().text_config
    norms = 2 * 2048 * 8
    latents = 512 * 8 + 64 * 2
    attention = latents + 16 * (4 * 192 * 2 + 4) + 16 * 128 * 2
    experts = 6 * (2 * 2048 + 4 * 1408) * 2 + 2048 * 4 + 4 * 64 + 200 + 4 * 2816 * 2
    assert activations.layer_bytes(text, 1, 2, flash=True) == norms + attention + experts
    assert activations.layer_bytes(text, 0, 2, flash=True) == norms + attention + 4 * 11264 * 2
    whole = activations.text_bytes(text, 1, 2, flash=True, checkpointing=False)
    kept = activations.text_bytes(text, 1, 2, flash=True, checkpointing=True)
    assert (round(whole / 1e6, 1), round(kept / 1e6, 2)) == (5.7, 0.11)  # as docs/scaling.md says


def test_checkpointing_keeps_one_input_a_layer():
    text = tiny_config(SIZES, num_tokens=300).text_config
    whole = activations.text_bytes(text, 100, 4, flash=True, checkpointing=False)
    each = [100 * activations.layer_bytes(text, at, 4, flash=True) for at in range(2)]
    assert whole == sum(each)
    assert activations.text_bytes(text, 100, 4, flash=True, checkpointing=True) == 2 * 100 * 256 * 4
    assert activations.layer_peak(text, 100, 4, flash=True) == max(each)
