"""The text modules beside a tower: padding says nothing, and no caption token sees itself or a later one."""

import pytest
import torch
from torch import nn

from rl.learner.image_text_model import Captions, ImageTextModel, PaddedPatches

WIDTH, VOCABULARY, FIRST = 16, 30, 29
GRIDS = torch.tensor([[2, 2], [2, 4], [4, 4]])  # images of 4, 8 and 16 patches


@pytest.fixture
def pairs():
    torch.manual_seed(0)
    model = ImageTextModel(
        nn.Identity(), width=WIDTH, layers=2, vocabulary=VOCABULARY, first_token=FIRST, max_tokens=8, batch_size=4
    )
    return model.double().eval()


@pytest.fixture
def features():
    return torch.randn(int(GRIDS.prod(-1).sum()), WIDTH, dtype=torch.float64)


IDS = [torch.tensor(ids) for ids in ([3, 4, 1], [5, 1], [6, 7, 8, 9, 1])]


def captions_of(ids):
    return Captions.of(ids, torch.device("cpu"))


def test_a_pair_reads_the_same_alone_and_among_larger_ones(pairs, features):
    together, captions = PaddedPatches.of(features, GRIDS), captions_of(IDS)
    images, texts = pairs.embed_images(together), pairs.embed_texts(captions)
    states = pairs.caption_states(captions, together)
    start = 0
    for i, grid in enumerate(GRIDS):
        count = int(grid.prod())
        own, text = PaddedPatches.of(features[start : start + count], grid[None]), captions_of([IDS[i]])
        assert torch.allclose(pairs.embed_images(own)[0], images[i])
        assert torch.allclose(pairs.embed_texts(text)[0], texts[i])
        assert torch.allclose(pairs.caption_states(text, own)[0], states[i, : len(IDS[i])])
        start += count
    assert torch.allclose(images.norm(dim=-1), torch.ones(3).double())


def test_a_caption_token_is_predicted_from_those_before_it_and_the_image(pairs, features):
    patches = PaddedPatches.of(features, GRIDS)
    states = pairs.caption_states(captions_of(IDS), patches)
    changed = [ids.clone() for ids in IDS]
    changed[2][2] = changed[0][0] = 11
    after = pairs.caption_states(captions_of(changed), patches)
    assert torch.allclose(states[2, :3], after[2, :3]), "the token itself and what precedes it do not see the change"
    assert not torch.allclose(states[2, 3], after[2, 3])
    assert torch.allclose(states[0, 0], after[0, 0]), "the first one neither"
    blind = pairs.caption_states(captions_of(IDS), PaddedPatches.of(torch.zeros_like(features), GRIDS))
    assert not torch.allclose(states[:, 0], blind[:, 0]), "the first token has the image alone"


def test_scale_and_bias_start_as_in_siglip(pairs):
    """At SigLIP's batch of 32,768 the bias is -10.4; theirs is -10."""
    assert float(pairs.log_scale.exp()) == pytest.approx(10.0)
    assert float(pairs.bias.exp()) == pytest.approx(1 / 4)
