"""Our sampling inside vLLM: a logits processor that draws the token and hands both its log-probs to vLLM's output.

vLLM returns one log-prob a token, filters in another order, and its seeded generators start again when an answer goes
on. So the draw is the embedded engine's own (`sampling.choose_tokens`). The row that vLLM gets afterwards has two
finite places: its greedy sampler takes the first, and `logprobs_mode="processed_logits"` brings both back to us.
For vLLM's own sampler see `vllm_native.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from vllm.sampling_params import RequestOutputKind, SamplingParams  # pyright: ignore[reportMissingImports]
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor  # pyright: ignore[reportMissingImports]
from vllm.v1.sample.logits_processor.builtin import process_dict_updates  # pyright: ignore[reportMissingImports]

from configs.rl import SamplingConfig
from rollouts.engines.sampling import barred_token_mask, choose_tokens, sample_uniforms

KEY = "thinkvl"  # of our values in vLLM's dictionaries of extra arguments
_LOGITS = 1 << 24  # numbers in one block
_ABOVE_ZERO = 1e-30  # keeps the drawn token ahead where both log-probs are exactly 0
_ENTRIES = 3  # vLLM's values of a token: the drawn one, the largest, the second largest


def exact_arguments(barred_ids: Sequence[int]) -> dict[str, Any]:
    """For `EngineArgs`."""
    return {
        "logprobs_mode": "processed_logits",
        "logits_processors": [SamplingProcessor],
        "additional_config": {KEY: {"barred": list(barred_ids)}},
        "async_scheduling": False,  # the drawn token must be known before the next step begins
    }


def sampling_params(
    sampling: SamplingConfig, *, seed: int, sample: int, start: int, max_tokens: int, stop_ids: list[int]
) -> SamplingParams:
    """What vLLM is told of one sample whose first `start` tokens were written before."""
    own = {"sampling": asdict(sampling), "seed": seed, "sample": sample, "start": start}
    return SamplingParams(
        temperature=0.0,  # of the two places that are left
        logprobs=_ENTRIES - 1,
        flat_logprobs=True,
        max_tokens=max_tokens,
        stop_token_ids=stop_ids,
        ignore_eos=True,  # the checkpoint's own; ours are the stop ids
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={KEY: own},
    )


def read_logprobs(values: list[float], position: int) -> tuple[float, float]:
    """Policy and sampler log-prob of the token at `position` of vLLM's flat list of values."""
    drawn, second = values[_ENTRIES * position], values[_ENTRIES * position + 2]
    return -drawn, second if second < -2 * _ABOVE_ZERO else 0.0


@dataclass(slots=True)
class _Sample:
    """What one row of vLLM's batch is drawn with."""

    sampling: SamplingConfig
    seed: int
    sample: int
    start: int
    generated: list[int]  # vLLM's own list of the tokens that it has generated
    uniforms: np.ndarray = field(default_factory=lambda: np.empty(0))

    def uniform(self) -> float:
        """The number of the next token: of (seed, sample, token's place) alone."""
        place = self.start + len(self.generated)
        if place >= len(self.uniforms):
            self.uniforms = sample_uniforms(self.seed, self.sample, 2 * place + 64)
        return float(self.uniforms[place])


class SamplingProcessor(LogitsProcessor):
    """Replaces each row of logits by the token drawn from it and its log-probs; rows that are not ours stay."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        del is_pin_memory
        barred = vllm_config.additional_config[KEY]["barred"]
        self._barred = barred_token_mask(vllm_config.model_config.get_vocab_size(), barred).to(device)
        self._rows: dict[int, _Sample] = {}

    def is_argmax_invariant(self) -> bool:
        """No: it decides the argmax."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests that enter, leave and move in vLLM's batch."""
        process_dict_updates(self._rows, batch_update, _new_sample)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """SamplingProcessor from `logits` `[R, V]`, in place."""
        alike: dict[SamplingConfig, list[int]] = defaultdict(list)
        for index, row in self._rows.items():
            alike[row.sampling].append(index)
        chunk = max(1, _LOGITS // len(self._barred))
        for sampling, indices in alike.items():
            for start in range(0, len(indices), chunk):
                self._draw(logits, indices[start : start + chunk], sampling)
        return logits

    def _draw(self, logits: torch.Tensor, indices: list[int], sampling: SamplingConfig) -> None:
        rows = torch.tensor(indices, device=logits.device)
        uniforms = torch.tensor(
            [self._rows[index].uniform() for index in indices], dtype=torch.float64, device=logits.device
        )
        tokens, policy, sampler = choose_tokens(logits[rows], sampling, self._barred, uniforms)
        logits[rows] = -torch.inf
        logits[rows, tokens] = -policy  # 0 or more, so ahead of the other
        logits[rows, (tokens == 0).long()] = sampler.clamp(max=-_ABOVE_ZERO)


def _new_sample(params: SamplingParams, prompt: list[int] | None, generated: list[int]) -> _Sample | None:
    del prompt
    own = (params.extra_args or {}).get(KEY)
    if own is None:
        return None
    sampling = SamplingConfig(**own["sampling"])
    return _Sample(sampling, own["seed"], own["sample"], own["start"], generated)
