"""The floors that GPU figures are held to, against numbers worked out by hand."""

from types import SimpleNamespace

import pytest
from rl_helpers import build_model

from kimi_vl import KimiVLConfig
from rl.plan import roofline
from rl.plan.hardware import peak_flops

TOY = SimpleNamespace(
    text_config=SimpleNamespace(
        hidden_size=10, num_hidden_layers=3, first_k_dense_replace=1, num_attention_heads=2, q_lora_rank=None,
        kv_lora_rank=4, qk_nope_head_dim=3, qk_rope_head_dim=2, v_head_dim=5, intermediate_size=7,
        moe_intermediate_size=6, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, vocab_size=20,
    )
)  # fmt: skip
# A layer's attention: queries 10 x 2 x 5 = 100, latents 10 x 6 = 60, keys and values 4 x 2 x 8 = 64, output 10 x 10.
ATTENTION = 3 * (100 + 60 + 64 + 100)  # 972
DENSE, EXPERT, SHARED = 3 * 10 * 7, 3 * 10 * 6, 2 * (80 + 180)  # 210, 180, 520
ACTIVE = ATTENTION + DENSE + SHARED + 2 * 2 * EXPERT  # 2422


def test_matrices_of_a_toy():
    found = roofline.products(TOY)
    assert (found.attention, found.dense, found.shared, found.expert) == (972, 210, 520, 180)
    assert found.active == ACTIVE == 2422
    assert found.head == 200
    assert found.held() == 972 + 210 + 520 + 2 * 8 * 180
    assert found.held(3.5) == 972 + 210 + 520 + 2 * 3.5 * 180


def test_matrices_of_the_published_model():
    """2.24 B active parameters without embeddings and head, 2.58 B with the head; 15.96 B in all (technical report)."""
    found = roofline.products(KimiVLConfig())
    assert found.active == pytest.approx(2.24e9, rel=2e-3)
    assert found.active + found.head == pytest.approx(2.58e9, rel=2e-3)
    # The head twice, for the embeddings; what is missing are norms alone.
    assert found.held() + 2 * found.head == pytest.approx(15_960_108_544, rel=1e-5)


def test_a_low_rank_query():
    text = SimpleNamespace(**{**vars(TOY.text_config), "q_lora_rank": 6})
    assert roofline.products(SimpleNamespace(text_config=text)).attention == ATTENTION + 3 * (6 * (10 + 10) - 100)


def test_pairs_of_a_response_after_its_prompt():
    assert roofline.causal_pairs(3) == 1 + 2 + 3
    assert roofline.causal_pairs(3, before=5) == 6 + 7 + 8


def test_an_update():
    pairs = roofline.causal_pairs(4)
    mixing = 3 * (2 * 3 * 2 * (3 + 2 + 5) * 10)  # forward and twice that backward; 3 layers, 2 heads, 10 pairs
    full = roofline.update_work(TOY, tokens=4, predicted=3, pairs=pairs)
    assert full.flops == 6 * (2422 * 4 + 200 * 3) + mixing
    assert full.bytes == 2 * 6 * (972 + 210 + 520 + 2880 + 200)
    lora = roofline.update_work(TOY, tokens=4, predicted=3, pairs=pairs, adapters=50)
    assert lora.flops == 4 * (2422 * 4 + 200 * 3) + 6 * 50 * 4 + mixing
    assert lora.bytes == 2 * 2 * (972 + 210 + 520 + 2880 + 200)


def test_a_rollout():
    """One prompt of 3 tokens, 2 samples of 3 tokens: a prefill and two steps with 1 and 2 own tokens."""
    first, *steps = roofline.rollout_work(TOY, groups=1, samples=2, prompt=3, new=3, experts=4)
    assert first.flops == 2 * 2422 * 3 + 2 * 200 * 2 + 2 * 3 * 2 * 10 * 6
    assert first.bytes == 2 * (972 + 210 + 520 + 2880 + 200)
    assert [s.bytes for s in steps] == [2 * (972 + 210 + 520 + 1440 + 200 + 3 * 6 * (3 + 2 * own)) for own in (1, 2)]
    assert [s.flops for s in steps] == [2 * 2622 * 2 + 2 * 3 * 2 * (4 + 4 + 2) * 2 * (3 + own) for own in (1, 2)]


def test_a_floor_is_the_longer_of_the_two():
    assert roofline.Work(10, 6).seconds(peak_flops=5, peak_bytes=2) == 3
    assert roofline.Work(20, 6).seconds(peak_flops=5, peak_bytes=2) == 4
    assert roofline.Work(1, 2) + roofline.Work(3, 4) == roofline.Work(4, 6)


def test_images_of_the_tiny_model():
    """Two images of 4 and 8 patches; width 32, one layer with an MLP of 40, text width 32, four patches a token."""
    config = build_model().config
    embedding, layer, projector = 3 * 14 * 14 * 32, 4 * 32 * 32 + 2 * 32 * 40, 128 * (128 + 32) / 4
    mixing = 4 * 32 * (4**2 + 8**2)
    forward = roofline.image_flops(config, roofline.FORWARD, [4, 8])
    assert forward == 12 * 2 * (embedding + layer + projector) + mixing
    trained = roofline.image_flops(config, roofline.TRAINED, [4, 8])
    assert trained == 12 * (4 * embedding + 6 * (layer + projector)) + 3 * mixing
    assert roofline.image_flops(config, roofline.NOT_RUN, [4, 8]) == 0


def test_a_group_is_what_its_steps_add_up_to():
    steps = roofline.rollout_work(TOY, groups=1, samples=2, prompt=3, new=5, experts=4)
    tower = build_model().config
    config = SimpleNamespace(
        **vars(TOY), vision_config=tower.vision_config, merge_shape=tower.merge_shape, patch_shape=tower.patch_shape
    )
    assert roofline.generation_flops(config, prompt=3, new=[5, 5]) == sum(step.flops for step in steps)
    one = roofline.generation_flops(config, prompt=3, new=[1])
    assert one == 2 * 2422 * 3 + 2 * 200 + 2 * 3 * 2 * 10 * 6


def test_peaks_of_cards_by_their_drivers_names():
    assert peak_flops("NVIDIA H100 80GB HBM3") == peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert [peak_flops(name) for name in ("cpu", "NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090")] == [None] * 3
