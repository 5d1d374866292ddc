"""Tiny checkpoints: the same bytes for the same arguments, single digits, weights of a sensible scale."""

import pytest
import torch
from kimi_helpers import SMALL, sums

from kimi_vl import TinySizes, create_tiny_checkpoint, load_model, load_processor
from kimi_vl.tiny import tiny_sizes, train_bpe


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    before = torch.random.get_rng_state()
    first = create_tiny_checkpoint(tmp_path / "a", corpus=sums(), sizes=SMALL, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert contents(first) == contents(create_tiny_checkpoint(tmp_path / "b", corpus=sums(), sizes=SMALL, seed=3))
    other = contents(create_tiny_checkpoint(tmp_path / "c", corpus=sums(), sizes=SMALL, seed=4))
    assert {name for name in other if other[name] != contents(first)[name]} == {"model.safetensors"}


def test_the_default_is_about_one_and_a_half_million_parameters(tmp_path):
    model = load_model(create_tiny_checkpoint(tmp_path, corpus=sums()))
    assert 1.2e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.6e6
    assert TinySizes().hidden_size == model.config.text_config.hidden_size == 128


def test_digits_stay_alone_and_words_do_not(tmp_path):
    tokens = train_bpe(["12 34 5678 ３４ answer is 99 the answer is 100"] * 50, 200)
    assert sorted(tokens[:256]) == [bytes([byte]) for byte in range(256)]
    assert len(set(tokens)) == len(tokens)
    multiple = [token for token in tokens if len(token) > 1]
    assert b" answer" in multiple
    assert [token for token in multiple if sum(48 <= byte < 58 for byte in token)] == []
    assert "３４".encode() not in multiple


def test_a_prompt_is_short(tmp_path):
    processor = load_processor(create_tiny_checkpoint(tmp_path, corpus=sums(), sizes=SMALL))
    text = processor.apply_chat_template([{"role": "user", "content": ""}], add_generation_prompt=True)
    assert len(processor.tokenizer(text)["input_ids"]) == 16


def test_activations_start_at_a_sensible_scale(tmp_path):
    """Logits near zero, every expert used, image tokens of the size of text tokens within a factor of ten."""
    model = load_model(create_tiny_checkpoint(tmp_path, corpus=sums()))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(40, 3, 14, 14, generator=generator)
    ids = torch.randint(0, 256, (4, 64), generator=generator)
    with torch.no_grad():
        out = model(input_ids=ids, output_router_logits=True)
        features = model.encode_images(pixels, torch.tensor([[4, 10]]))
    assert 0.2 < out.logits.std() < 3
    for layer in out.router_logits:
        assert len(layer.topk(2).indices.unique()) == 8
    assert 0.1 < features.std() / model.get_input_embeddings().weight.std() < 10
    assert features.std(dim=0).mean() > 0.1 * features.std()  # the patches can be told apart


@pytest.mark.parametrize(("width", "depth"), [(32, 2), (64, 5)])
def test_sizes_in_the_proportions_of_the_defaults_make_a_model(tmp_path, width, depth):
    assert tiny_sizes() == TinySizes()
    sizes = tiny_sizes(hidden_size=width, num_hidden_layers=depth, kv_lora_rank=48)
    model = load_model(create_tiny_checkpoint(tmp_path, corpus=["1 + 2"], sizes=sizes))
    assert (sizes.kv_lora_rank, sizes.intermediate_size) == (48, 3 * width)
    assert model.config.text_config.hidden_size == width
