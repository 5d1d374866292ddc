"""Closing a think block early: the close mark is inserted, and the model continues with its completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rollouts.types import Completion, Segment


def close_thinking(completion: Completion, *, at: int, close_ids: Sequence[int]) -> Completion:
    """The first `at` tokens of `completion` and then the close mark, unfinished: a prefix (`Request.prefixes`).

    The mark's tokens are a segment of their own with `sampled=False`, and their log-probs are 0. Raises ValueError if
    the completion has no more than `at` tokens.
    """
    if not 0 < at < len(completion.token_ids):
        raise ValueError(f"at = {at}: must be between 1 and {len(completion.token_ids) - 1}, inside the completion")
    kept = [replace(s, stop=min(s.stop, at)) for s in completion.segments if s.start < at]
    mark = Segment(start=at, stop=at + len(close_ids), version=kept[-1].version, sampled=False)
    zeros = np.zeros(len(close_ids), np.float32)
    routes = completion.routed_experts
    if routes is not None:  # a router of their own: nothing was recorded
        unknown = np.full((len(close_ids), *routes.shape[1:]), np.iinfo(routes.dtype).max, routes.dtype)
        routes = np.concatenate((routes[:at], unknown))
    return Completion(
        token_ids=np.concatenate((completion.token_ids[:at], np.asarray(close_ids, np.int64))),
        policy_logprobs=np.concatenate((completion.policy_logprobs[:at], zeros)),
        sampler_logprobs=np.concatenate((completion.sampler_logprobs[:at], zeros)),
        finish_reason="abort",
        segments=(*kept, mark),
        routed_experts=routes,
    )
