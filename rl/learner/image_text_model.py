"""A vision tower with a text encoder and a caption decoder beside it, as in CoCa (arXiv:2205.01917).

The two text modules serve the training of the tower and are dropped at its end. They are small transformers of torch's
own, as wide as the tower, with one table of token embeddings for both and for the decoder's head.

Shapes: N images with a caption each, P patches of all images, F most patches of an image, L most tokens of a caption,
W width of the tower, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

_HEAD = 64  # width of an attention head


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedPatches:
    """The patch features of each image, padded to the largest image."""

    features: torch.Tensor  # [N, F, W]
    padding: torch.Tensor  # [N, F] bool, true where there is no patch

    @classmethod
    def of(cls, features: torch.Tensor, grids: torch.Tensor) -> PaddedPatches:
        """From the features `[P, W]` of images of any sizes, whose `grids` `[N, 2]` say how many patches each has."""
        counts = grids.prod(-1)
        rows = features.split(counts.tolist())
        return cls(features=pad_sequence(list(rows), batch_first=True), padding=_padding(counts).to(features.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """The token ids of captions, the end token included, padded to the longest one."""

    ids: torch.Tensor  # [N, L]
    padding: torch.Tensor  # [N, L] bool, true where there is no token

    @classmethod
    def of(cls, token_ids: list[torch.Tensor], device: torch.device) -> Captions:
        """From the token ids `[T]` of each caption."""
        counts = torch.tensor([len(ids) for ids in token_ids])
        return cls(ids=pad_sequence(token_ids, batch_first=True).to(device), padding=_padding(counts).to(device))


def _padding(counts: torch.Tensor) -> torch.Tensor:
    return torch.arange(int(counts.max())) >= counts[:, None]


class AttentionPooling(nn.Module):
    """One vector of a sequence, by a learned query: SigLIP's pooling head (big_vision's `MAPHead`).

    Unlike a mean it can leave out patches of the background, and it is used only here: the tower's own features stay
    free for the language model.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_embed = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, features: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """`[N, F, W]` features, and where they are padding, to `[N, W]`."""
        query = self.query_embed.expand(len(features), -1, -1)
        pooled, _ = self.attention(query, features, features, key_padding_mask=padding, need_weights=False)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class ImageTextModel(nn.Module):
    """`tower`, a pooling head, a text encoder, a caption decoder that reads the patches, and the contrastive scale.

    `width` is the tower's. The scale starts at 10, as in SigLIP §3.2. The bias starts at minus the logarithm of
    `batch_size`, where the many negatives of a step do not outweigh its positives; SigLIP's -10 is that of a batch of
    32k. `first_token` begins every caption for the decoder, and `max_tokens` is the longest caption.
    """

    def __init__(
        self,
        tower: nn.Module,
        *,
        width: int,
        layers: int,
        vocabulary: int,
        first_token: int,
        max_tokens: int,
        batch_size: int,
    ) -> None:
        super().__init__()
        heads = max(1, width // _HEAD)
        self.vision_tower, self._first_token = tower, first_token
        self.image_pooling, self.text_pooling = AttentionPooling(width, heads), AttentionPooling(width, heads)
        self.embed_tokens, self.position_embed = nn.Embedding(vocabulary, width), nn.Embedding(max_tokens, width)
        sizes = {"d_model": width, "nhead": heads, "dim_feedforward": 4 * width, "dropout": 0.0}
        options = {"activation": "gelu", "batch_first": True, "norm_first": True}
        self.text_encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**sizes, **options), layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.caption_decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**sizes, **options), layers, nn.LayerNorm(width)
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-math.log(batch_size)))
        for table in (self.embed_tokens, self.position_embed):
            nn.init.normal_(table.weight, std=width**-0.5)

    def embed_images(self, patches: PaddedPatches) -> torch.Tensor:
        """`[N, W]` of norm 1."""
        return normalize(self.image_pooling(patches.features, patches.padding), dim=-1)

    def embed_texts(self, captions: Captions) -> torch.Tensor:
        """`[N, W]` of norm 1. The encoder reads in both directions."""
        states = self.text_encoder(self._embed(captions.ids), src_key_padding_mask=captions.padding)
        return normalize(self.text_pooling(states, captions.padding), dim=-1)

    def caption_states(self, captions: Captions, patches: PaddedPatches) -> torch.Tensor:
        """`[N, L, W]`: the states that predict each token of the captions from those before it and the patches."""
        before = captions.ids.roll(1, dims=1)
        before[:, 0] = self._first_token
        length = before.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=before.device).triu(1)
        return self.caption_decoder(
            self._embed(before),
            patches.features,
            tgt_mask=later,
            tgt_key_padding_mask=captions.padding,
            memory_key_padding_mask=patches.padding,
        )

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        return self.embed_tokens(ids) + self.position_embed(positions)
