"""Logits to tokens, with the two log-probabilities that a completion keeps. V is the vocabulary, R the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from configs.rl import SamplingConfig


def sample_uniforms(seed: int, sample: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) of one sample's tokens: `[count]` float64.

    The stream depends on the request's seed and the sample's index alone, so what shares a batch, which worker takes
    the request and how long others run cannot change what this sample draws.
    """
    return _generator(seed, sample).random(count)


class UniformStream:
    """The numbers of `sample_uniforms` one after the other from token `start` on, made when they are needed."""

    def __init__(self, seed: int, sample: int, *, start: int = 0) -> None:
        self._generator = _generator(seed, sample)
        self._ready: list[float] = self._generator.random(start + _CHUNK)[start:].tolist()[::-1]

    def next(self) -> float:
        """The number of the next token."""
        if not self._ready:
            self._ready = self._generator.random(_CHUNK).tolist()[::-1]
        return self._ready.pop()


_CHUNK = 64


def _generator(seed: int, sample: int) -> np.random.Generator:
    key = np.array([seed & (2**64 - 1), sample], dtype=np.uint64)  # a plain list would round seeds over 2**63
    return np.random.Generator(np.random.Philox(key=key))


def barred_token_mask(vocab_size: int, barred: Sequence[int]) -> torch.Tensor:
    """`[V]` bool, True where a token may never be sampled (image placeholders, padding, unused ids).

    A sampled placeholder would need an image that does not exist when the sequence is scored.
    """
    mask = torch.zeros(vocab_size, dtype=torch.bool)
    mask[list(barred)] = True
    return mask


def policy_logprobs(logits: torch.Tensor, temperature: float, barred: torch.Tensor) -> torch.Tensor:
    """Log-softmax of `logits` `[R, V]` in fp32 under the temperature and the barred mask.

    The learner computes the same function; greedy decoding (temperature 0) is scored at temperature 1.
    """
    scaled = logits.float() / (temperature if temperature > 0 else 1.0)
    return torch.log_softmax(scaled.masked_fill(barred, -math.inf), dim=-1)


def filter_logprobs(logprobs: torch.Tensor, sampling: SamplingConfig) -> torch.Tensor:
    """Apply top-k, then top-p, then min-p to `[R, V]` log-probs and renormalise; the most likely token stays."""
    if sampling.top_k == 0 and sampling.top_p == 1.0 and sampling.min_p == 0.0:
        return logprobs
    kept = logprobs
    if sampling.top_k:
        floor = kept.topk(min(sampling.top_k, kept.shape[-1]), dim=-1).values[:, -1:]
        kept = kept.masked_fill(kept < floor, -math.inf)
    if sampling.top_p < 1.0:
        ordered, order = kept.log_softmax(-1).sort(dim=-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()  # mass of the tokens that are more likely
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= sampling.top_p)
        kept = kept.masked_fill(drop, -math.inf)
    if sampling.min_p > 0.0:
        kept = kept.masked_fill(logprobs < logprobs.amax(-1, keepdim=True) + math.log(sampling.min_p), -math.inf)
    return kept.log_softmax(-1)


def draw(logprobs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Inverse-CDF sampling: `[R]` token ids from `[R, V]` log-probs and `[R]` uniforms.

    Sums are in fp64, so that a vocabulary of 163,840 loses no tail; a token of probability 0 is never drawn. First a
    block of about sqrt(V) tokens is chosen by its sum, then the token in it: the cumulative sum, which no CPU does
    fast, is over 2 sqrt(V) numbers instead of V.
    """
    rows, size = logprobs.shape
    width = 1 << round(math.log2(size) / 2)
    probabilities = torch.nn.functional.pad(logprobs.exp(), (0, -size % width)).view(rows, -1, width)
    blocks = probabilities.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniforms.double().unsqueeze(-1) * blocks[:, -1:]
    block = _first_above(blocks, target)
    inside = probabilities[torch.arange(rows, device=block.device), block.squeeze(-1)].double().cumsum(-1)
    before = blocks.gather(-1, block) - inside[:, -1:]  # not the block's left neighbour: the sums round differently
    return (block * width + _first_above(inside, target - before)).squeeze(-1)


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`[R, 1]` first index whose cumulative sum is above the target `[R, 1]`; a step is needed, so never a zero."""
    top = torch.nextafter(cumulative[:, -1:], torch.zeros_like(target))
    return torch.searchsorted(cumulative, torch.minimum(target, top).clamp(min=0.0), right=True)


def choose_tokens(
    logits: torch.Tensor, sampling: SamplingConfig, barred: torch.Tensor, uniforms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw one token a row: ids `[R]`, policy log-probs `[R]`, sampler log-probs `[R]` (0 for greedy)."""
    policy = policy_logprobs(logits, sampling.temperature, barred)
    if sampling.temperature == 0:
        tokens = policy.argmax(-1)
        chosen = policy.gather(-1, tokens[:, None]).squeeze(-1)
        return tokens, chosen, torch.zeros_like(chosen)
    sampler = filter_logprobs(policy, sampling)
    tokens = draw(sampler, uniforms)
    index = tokens[:, None]
    return tokens, policy.gather(-1, index).squeeze(-1), sampler.gather(-1, index).squeeze(-1)
