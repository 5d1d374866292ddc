"""The model computes what an independent restatement of the papers computes, and the fast paths change nothing."""

import json

import kimi_reference
import pytest
import torch

from kimi_vl import load_model


@pytest.fixture(scope="module")
def config(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def expected(prompt, tensors, config):
    """Row by row, without padding: the logits of the restatement."""
    grids = prompt["image_grid_hws"].tolist()
    first = grids[0][0] * grids[0][1]
    split = [(prompt["pixel_values"][:first], grids[:1]), (prompt["pixel_values"][first:], grids[1:])]
    rows = []
    for ids, mask, (pixels, own) in zip(prompt["input_ids"], prompt["attention_mask"], split, strict=True):
        rows.append(kimi_reference.kimi_vl(ids[mask.bool()], pixels, own, tensors, config))
    return rows


def unpadded(logits, mask):
    return [row[own.bool()] for row, own in zip(logits, mask, strict=True)]


def assert_close(actual, wanted):
    for ours, theirs in zip(actual, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, theirs.abs().max().item() / 10)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("experts", ["grouped_mm", "eager"])
def test_logits_match_the_restatement(folder, prompt, expected, attention, experts):
    model = load_model(folder, attention=attention, experts=experts)
    assert model.model.language_model.config._experts_implementation == experts
    with torch.no_grad():
        logits = model(**prompt).logits
    assert min(row.std() for row in expected) > 0.3
    assert_close(unpadded(logits, prompt["attention_mask"]), expected)


def test_image_features_match_the_restatement(model, prompt, tensors, config):
    wanted, start = [], 0
    for h, w in prompt["image_grid_hws"].tolist():
        pixels = prompt["pixel_values"][start : start + h * w]
        wanted.append(kimi_reference.image_features(pixels, h, w, tensors, config["vision_config"]))
        start += h * w
    with torch.no_grad():
        features = model.get_image_features(prompt["pixel_values"], prompt["image_grid_hws"]).pooler_output
    assert [len(image) for image in features] == [h * w // 4 for h, w in prompt["image_grid_hws"].tolist()]
    assert_close(features, wanted)


def test_a_table_of_the_images_size_is_used_as_it_is(model, tensors, config):
    side = config["vision_config"]["init_pos_emb_height"]
    pixels = torch.randn(side * side, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.encode_images(pixels, torch.tensor([[side, side]]))
    assert_close([features], [kimi_reference.image_features(pixels, side, side, tensors, config["vision_config"])])


def test_decoding_token_by_token_matches_the_restatement(model, prompt, expected):
    """The absorbed one-token attention, over a left-padded batch with images."""
    ids, mask = prompt["input_ids"], prompt["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    tail = 6
    steps = []
    with torch.no_grad():
        out = model(
            input_ids=ids[:, :-tail],
            attention_mask=mask[:, :-tail],
            position_ids=positions[:, :-tail],
            pixel_values=prompt["pixel_values"],
            image_grid_hws=prompt["image_grid_hws"],
            use_cache=True,
        )
        for index in range(ids.shape[1] - tail, ids.shape[1]):
            out = model(
                input_ids=ids[:, index : index + 1],
                attention_mask=mask[:, : index + 1],
                position_ids=positions[:, index : index + 1],
                past_key_values=out.past_key_values,
                use_cache=True,
            )
            steps.append(out.logits[:, 0])
    decoded = torch.stack(steps, dim=1)
    assert_close(list(decoded), [row[-tail:] for row in expected])


def test_images_of_one_size_in_one_call_equal_one_by_one(model):
    pixels = torch.randn(8 + 8 + 12, 3, 14, 14, generator=torch.Generator().manual_seed(3))
    grids = torch.tensor([[2, 4], [4, 2], [2, 6]])
    with torch.no_grad():
        together = model.encode_images(pixels, grids).split([2, 2, 3])
        apart = [
            model.encode_images(part, grid[None]) for part, grid in zip(pixels.split([8, 8, 12]), grids, strict=True)
        ]
    assert_close(together, apart)
    assert (together[0] - together[1]).abs().max() > 0.01
