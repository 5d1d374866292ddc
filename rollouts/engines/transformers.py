"""The embedded engine: our own model in process, batched decoding, prompt and image encoded once per group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from configs.schema import SamplingConfig
from kimi_vl import KimiVLForConditionalGeneration
from rollouts.engines.latent import DecodeState, LatentDecoder
from rollouts.engines.sampling import barred_token_mask, choose_tokens, sample_uniforms
from rollouts.types import Completion, FinishReason, Prompt, Request, Segment


class TransformersEngine:
    """Generates with a `KimiVLForConditionalGeneration`.

    A sample's tokens depend on its prompt, the weights, the request's seed and its index; what else is in the batch
    can change the last bits of a logit (matrix products of another shape), and nothing more.
    """

    def __init__(
        self,
        model: KimiVLForConditionalGeneration,
        *,
        stop_ids: Sequence[int],
        barred_ids: Sequence[int],
        version: int = 0,
        max_rows: int = 256,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self._stop_ids = torch.tensor(sorted(stop_ids), device=model.device)
        self._barred = barred_token_mask(model.config.text_config.vocab_size, barred_ids).to(model.device)
        self._version = version
        self._max_rows = max_rows

    @property
    def version(self) -> int:
        """The policy version that the next token will come from."""
        return self._version

    def load_weights(self, weights: Mapping[str, np.ndarray | torch.Tensor], *, version: int) -> None:
        """Copy `weights`, named as in the model's state dict, in place.

        Raises ValueError, before anything is changed, if names or shapes differ from the model's.
        """
        own = self.model.state_dict()
        if own.keys() != weights.keys():
            missing, extra = sorted(own.keys() - weights.keys())[:3], sorted(weights.keys() - own.keys())[:3]
            raise ValueError(f"weights of version {version} do not fit: missing {missing}, unexpected {extra}")
        for name, tensor in own.items():
            if tuple(weights[name].shape) != tuple(tensor.shape):
                raise ValueError(f"{name}: shape {tuple(weights[name].shape)}, the engine has {tuple(tensor.shape)}")
        for name, tensor in own.items():
            tensor.copy_(torch.as_tensor(weights[name]))
        self._version = version

    def close(self) -> None:
        """Nothing to free: the model belongs to the caller."""

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Return `request.n` completions for each request, in order."""
        return [group for batch in self._batches(requests) for group in self._generate_batch(batch, sampling)]

    def _batches(self, requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
        """Cut the requests into consecutive batches of at most `max_rows` samples (one request at least)."""
        start = 0
        while start < len(requests):
            stop, widest = start, 0
            while stop < len(requests):
                widest = max(widest, requests[stop].n)
                if stop > start and widest * (stop + 1 - start) > self._max_rows:
                    break
                stop += 1
            yield requests[start:stop]
            start = stop

    def _generate_batch(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        samples = max(r.n for r in requests)
        embeds, lengths = self._embed_prompts([r.prompt for r in requests])
        decoder = LatentDecoder(self.model.model.language_model)
        hidden, state = decoder.prefill(embeds, lengths, samples=samples, max_new_tokens=sampling.max_new_tokens)
        rows = _Rows(requests, samples, sampling)
        hidden = hidden.repeat_interleave(samples, 0)
        for step in range(sampling.max_new_tokens):
            uniforms = rows.uniforms(step).to(hidden.device)
            tokens, policy, sampler = choose_tokens(self.model.lm_head(hidden), sampling, self._barred, uniforms)
            rows.record(tokens, policy, sampler, torch.isin(tokens, self._stop_ids))
            if rows.all_done:
                break
            tokens = rows.compact(state, tokens)
            if step + 1 < sampling.max_new_tokens:
                hidden = decoder.step(tokens, state)
        return rows.completions(self._version)

    def _embed_prompts(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed prompts, each image encoded once: right-padded `[G, L, H]` and lengths `[G]`."""
        device = self.model.device
        lengths = torch.tensor([len(p.input_ids) for p in prompts], device=device)
        ids = torch.full((len(prompts), int(lengths.max())), 0, device=device)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt.input_ids)] = torch.as_tensor(prompt.input_ids)
        features = None
        if any(len(p.pixel_values) for p in prompts):
            pixels = torch.from_numpy(np.concatenate([p.pixel_values for p in prompts]))
            grids = torch.from_numpy(np.concatenate([p.image_grid_hws for p in prompts]))
            features = self.model.encode_images(pixels.to(device, self.model.dtype), grids.to(device))
        return self.model.embed(ids, features), lengths


class _Rows:
    """Bookkeeping of the samples in a running batch; slot (g, i) of the batch holds sample `self.where[g, i]`."""

    def __init__(self, requests: Sequence[Request], samples: int, sampling: SamplingConfig) -> None:
        self.requests, self.samples, self.limit = requests, samples, sampling.max_new_tokens
        count = len(requests) * samples
        self.tokens = np.zeros((count, self.limit), np.int64)
        self.policy = np.zeros((count, self.limit), np.float32)
        self.sampler = np.zeros((count, self.limit), np.float32)
        self.lengths = np.zeros(count, np.int64)
        self.reasons: list[FinishReason] = ["length"] * count
        wanted = np.array([[i < r.n for i in range(samples)] for r in requests])
        self.done = ~wanted.reshape(-1)
        self.where = torch.arange(count).view(len(requests), samples)
        self.filled = torch.from_numpy(wanted)  # [G, n] slots whose sample is still running
        if sampling.temperature == 0:
            self.random = np.zeros((count, 1))
        else:
            self.random = np.stack([sample_uniforms(r.seed, i, self.limit) for r in requests for i in range(samples)])

    @property
    def all_done(self) -> bool:
        """True when no sample runs any more."""
        return bool(self.done.all())

    def uniforms(self, step: int) -> torch.Tensor:
        """The random number of every slot at this step, `[R]`."""
        return torch.from_numpy(self.random[self.where.reshape(-1).numpy(), min(step, self.random.shape[1] - 1)])

    def record(self, tokens: torch.Tensor, policy: torch.Tensor, sampler: torch.Tensor, stop: torch.Tensor) -> None:
        """Append one token to each running sample and end those that drew a stop token or reached the limit."""
        live = self.filled.reshape(-1).numpy()
        samples = self.where.reshape(-1).numpy()[live]
        at = self.lengths[samples]
        for target, values in ((self.tokens, tokens), (self.policy, policy), (self.sampler, sampler)):
            target[samples, at] = values.cpu().numpy()[live]
        self.lengths[samples] += 1
        stopped = stop.cpu().numpy()[live]
        for sample in samples[stopped]:
            self.reasons[sample] = "stop"
        self.done[samples[stopped | (self.lengths[samples] >= self.limit)]] = True
        self.filled &= ~torch.from_numpy(self.done)[self.where]

    def compact(self, state: DecodeState, tokens: torch.Tensor) -> torch.Tensor:
        """Drop finished groups and surplus slots once a quarter of the batch is idle; return the kept tokens."""
        groups = self.filled.any(1).nonzero().squeeze(1)
        widest = int(self.filled.sum(1).max())
        if len(groups) * widest > 0.75 * self.filled.numel():
            return tokens
        order = self.filled[groups].long().argsort(dim=1, descending=True, stable=True)[:, :widest]
        kept = tokens.view(self.filled.shape)[groups[:, None], order].reshape(-1)
        self.where = self.where[groups[:, None], order]
        self.filled = self.filled[groups[:, None], order]
        state.select(groups.to(tokens.device), order.to(tokens.device))
        return kept

    def completions(self, version: int) -> list[list[Completion]]:
        """The finished samples of each request, in order."""
        return [
            [self._completion(g * self.samples + i, version) for i in range(request.n)]
            for g, request in enumerate(self.requests)
        ]

    def _completion(self, row: int, version: int) -> Completion:
        length = int(self.lengths[row])
        return Completion(
            token_ids=self.tokens[row, :length].copy(),
            policy_logprobs=self.policy[row, :length].copy(),
            sampler_logprobs=self.sampler[row, :length].copy(),
            finish_reason=self.reasons[row],
            segments=(Segment(start=0, stop=length, version=version),),
        )
