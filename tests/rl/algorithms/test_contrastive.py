"""The sigmoid loss and recall by hand, and the loss's gradient."""

import math

import pytest
import torch

from rl.algorithms.contrastive import retrieval_recall, same_captions, sigmoid_contrastive_loss


def softplus(x):
    return math.log1p(math.exp(x))


def tensors(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_the_sigmoid_loss_by_hand():
    """t = 2, b = -1: the logits are 1 and -1 on the diagonal, and -1 and 0.2 beside it."""
    images, texts = tensors([1, 0], [0, 1]), tensors([1, 0], [0.6, 0.8])
    scale, bias = torch.tensor(math.log(2.0), dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    logits = [[1.0, 0.2], [-1.0, 0.6]]
    alone = (softplus(-logits[0][0]) + softplus(logits[0][1]) + softplus(logits[1][0]) + softplus(-logits[1][1])) / 2
    loss = sigmoid_contrastive_loss(images, texts, same_captions(["a", "b"]), log_scale=scale, bias=bias)
    assert float(loss) == pytest.approx(alone)
    alike = sum(softplus(-value) for row in logits for value in row) / 2
    loss = sigmoid_contrastive_loss(images, texts, same_captions(["a", "a"]), log_scale=scale, bias=bias)
    assert float(loss) == pytest.approx(alike), "equal captions are positives"


def test_the_gradient_of_the_sigmoid_loss():
    """Of the bias by hand: -1/N sum z (1 - sigmoid(z l)); of everything by finite differences."""
    torch.manual_seed(0)
    images, texts = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    same = same_captions(["a", "b", "a"])

    def loss(images, texts, scale, bias):
        return sigmoid_contrastive_loss(images, texts, same, log_scale=scale, bias=bias)

    assert torch.autograd.gradcheck(loss, (images, texts, scale, bias))
    loss(images, texts, scale, bias).backward()
    signs = torch.where(same, 1.0, -1.0)
    logits = (scale.exp() * images @ texts.T + bias).detach()
    assert float(bias.grad) == pytest.approx(float(-(signs * torch.sigmoid(-signs * logits)).sum() / 3))


def test_captions_are_the_same_where_their_text_is():
    assert same_captions(["b", "a", "b"]).tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_recall_by_hand():
    """The first two images are found; the third is nearest to `a` (0.9), and its own caption is second (0.889)."""
    images, texts = tensors([1, 0], [0, 1], [0.9, 0.19**0.5]), tensors([1, 0], [0, 1], [0.6, 0.8])
    found = retrieval_recall(images, texts, ["a", "b", "c"], ks=(1, 2, 5))
    assert found["image_to_text_1"] == pytest.approx(2 / 3)
    assert found["image_to_text_2"] == found["image_to_text_5"] == 1.0
    assert found["text_to_image_1"] == 1.0


def test_any_image_with_the_same_caption_is_right():
    """Both images of `a` count for it, and `a` is one candidate, not two."""
    images, texts = tensors([1, 0], [0, 1], [0.6, 0.8]), tensors([1, 0], [1, 0], [0, 1])
    found = retrieval_recall(images, texts, ["a", "a", "b"], ks=(1,))
    assert found == {"image_to_text_1": pytest.approx(2 / 3), "text_to_image_1": pytest.approx(0.5)}
