"""The loss of image-text pairs, and how well the one finds the other.

Shapes: N images with N captions, D width of an embedding, U distinct captions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import logsigmoid


def sigmoid_contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, same: torch.Tensor, *, log_scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """SigLIP (arXiv:2303.15343 §3.2): `-1/N sum_ij log sigmoid(z_ij (t x_i . y_j + b))`, with `t = exp(log_scale)`.

    `images` and `texts` are `[N, D]` of norm 1; `same` is `[N, N]` bool, z = 1 where it is true and -1 elsewhere.
    Deviation: the paper's z is 1 on the diagonal alone. Here it is 1 for every image with the same caption, which would
    be a wrong negative.
    """
    logits = log_scale.exp() * images @ texts.T + bias
    return -logsigmoid(torch.where(same, logits, -logits)).sum() / len(images)


def same_captions(captions: Sequence[str]) -> torch.Tensor:
    """`[N, N]` bool: which captions are equal."""
    numbers = caption_numbers(captions)
    return numbers[:, None] == numbers


def caption_numbers(captions: Sequence[str]) -> torch.Tensor:
    """`[N]`: the number of each caption among the distinct ones, counted from 0 as they first appear."""
    known: dict[str, int] = {}
    return torch.tensor([known.setdefault(caption, len(known)) for caption in captions], dtype=torch.long)


def retrieval_recall(
    images: torch.Tensor, texts: torch.Tensor, captions: Sequence[str], *, ks: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Recall at k of `[N, D]` embeddings of norm 1, both ways: `image_to_text_K` and `text_to_image_K`.

    The candidates of an image are the U distinct captions, and its own has to be among the k most similar. The
    candidates of a caption are all N images; one of the k most similar has to have this caption.
    """
    numbers = caption_numbers(captions)
    first = [captions.index(caption) for caption in dict.fromkeys(captions)]
    similarity = (images @ texts[first].T).cpu()  # [N, U]
    found: dict[str, float] = {}
    for k in ks:
        chosen_texts = similarity.topk(min(k, len(first)), dim=1).indices
        chosen_images = similarity.topk(min(k, len(numbers)), dim=0).indices
        right = (chosen_texts == numbers[:, None]).any(1)
        found[f"image_to_text_{k}"] = float(right.double().mean())
        right = (numbers[chosen_images] == torch.arange(len(first))).any(0)
        found[f"text_to_image_{k}"] = float(right.double().mean())
    return found
