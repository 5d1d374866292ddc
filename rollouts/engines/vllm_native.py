"""vLLM's own sampler: seeded draws, asynchronous scheduling, and the log-probs that the learner needs.

`logprobs_mode="processed_logprobs"` returns the log-prob of the drawn token under the temperature and the barred
tokens, which is what the learner computes. With top-k or top-p it would be the one after the filters, so filters are
refused. The draws have the same distribution as the exact ones, and other values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from vllm.sampling_params import RequestOutputKind, SamplingParams  # pyright: ignore[reportMissingImports]

from configs.rl import SamplingConfig
from rollouts.engines.sample_state import route_dtype

_BARRED = -1e30  # added to a logit: its probability is exactly 0, and the sum stays finite


def native_arguments() -> dict[str, Any]:
    """For `EngineArgs`."""
    return {"logprobs_mode": "processed_logprobs", "async_scheduling": True}


def check_filters(sampling: SamplingConfig) -> None:
    """Raise ValueError where vLLM's sampler would filter: the policy's log-prob would be lost."""
    filters = {"top_p": (sampling.top_p, 1.0), "top_k": (sampling.top_k, 0), "min_p": (sampling.min_p, 0.0)}
    if used := [f"{name} = {value}" for name, (value, off) in filters.items() if value != off]:
        raise ValueError(
            f"sampling with {', '.join(used)} needs rl.engine_options.sampler: exact; vLLM's own sampler returns one "
            "log-prob of a token, which is then the one after the filters"
        )


def bias_of(barred_ids: tuple[int, ...]) -> Mapping[int, float]:
    """What bars tokens, for `native_params`."""
    return dict.fromkeys(barred_ids, _BARRED)


def native_params(
    sampling: SamplingConfig,
    *,
    seed: int,
    sample: int,
    start: int,
    max_tokens: int,
    stop_ids: list[int],
    bias: Mapping[int, float],
    prompt: int,
) -> SamplingParams:
    """What vLLM is given of one sample whose first `start` tokens, after `prompt` others, were generated before."""
    return SamplingParams(
        temperature=sampling.temperature,
        seed=_seed(seed, sample, start),
        logprobs=0,  # of the drawn token alone
        flat_logprobs=True,
        max_tokens=max_tokens,
        stop_token_ids=stop_ids,
        ignore_eos=True,  # the checkpoint's own; ours are the stop ids
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        logit_bias=dict(bias),
        routed_experts_prompt_start=prompt + start - 1,  # the input that predicts the first new token
    )


def read_native(values: list[float], position: int, sampling: SamplingConfig) -> tuple[float, float]:
    """Policy and sampler log-prob of the token at `position` of vLLM's flat list of values."""
    return values[position], 0.0 if sampling.temperature == 0 else values[position]


def take_experts(vllm: Any, name: str) -> np.ndarray | None:
    """`[T, layers, k]`, the experts of a request that vLLM has not finished; None where it recorded none.

    vLLM returns them with the last output, and a request that is aborted has none.
    """
    processor = vllm.output_processor
    (own,) = processor.external_req_ids[name]
    chunks = processor.request_states[own].routed_experts_chunks
    return np.concatenate(chunks) if chunks else None


def experts_of(rows: np.ndarray, text: Any) -> list[np.ndarray]:
    """`[M, k]` of each token, from vLLM's `[T, layers, k]`, in which dense layers have a place too."""
    return list(rows[:, text.first_k_dense_replace :].astype(route_dtype(text.n_routed_experts)))


def _seed(seed: int, sample: int, start: int) -> int:
    """A seed of its own for each sample, and for each piece of one that goes on."""
    entropy = np.random.SeedSequence([seed & (2**64 - 1), sample, start])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
