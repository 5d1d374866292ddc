"""The state of each sample of a running batch: its tokens, where they came from, and why it ended."""

from __future__ import annotations

from array import array

import numpy as np
import torch

from configs.rl import SamplingConfig
from rollouts.engines.repetition import find_loop
from rollouts.engines.sampling import UniformStream
from rollouts.types import Completion, FinishReason, Request, Segment

_LOOP_CHECK = 16  # tokens between two looks for a loop; what was written since is cut off, so results are exact


def route_dtype(experts: int) -> type[np.unsignedinteger]:
    """The smallest type for the numbers of so many experts; its largest value says that none was recorded."""
    return np.uint8 if experts < 255 else np.uint16


class RunningGroup:
    """One request: its samples and, while any of them is unfinished, what prefill found in the prompt."""

    def __init__(self, index: int, request: Request, sampling: SamplingConfig) -> None:
        self.index, self.request = index, request
        self.length = len(request.prompt.input_ids)
        self.latents: torch.Tensor | None = None  # [layers, L, K], until the first sample needs them in the cache
        self.hidden: torch.Tensor | None = None  # [H], predicts the first token; None: not read yet
        self.experts: torch.Tensor | None = None  # [M, k] of the last prompt token
        prefixes = request.prefixes or (None,) * request.n
        self.samples = [RunningSample(self, index, sampling, prefix) for index, prefix in enumerate(prefixes)]
        self.unfinished = sum(sample.reason is None for sample in self.samples)

    def completions(self) -> list[Completion]:
        """What is returned for the request."""
        return [sample.completion() for sample in self.samples]


class RunningSample:
    """One sample. `reason` is None while it runs."""

    def __init__(self, group: RunningGroup, index: int, sampling: SamplingConfig, before: Completion | None) -> None:
        self.group, self.index, self.sampling, self.before = group, index, sampling, before
        self.tokens = array("q", before.token_ids.tolist() if before else ())
        self.policy = array("f", before.policy_logprobs.tolist() if before else ())
        self.sampler = array("f", before.sampler_logprobs.tolist() if before else ())
        self.segments: list[Segment] = list(before.segments) if before else []
        self.experts: list[np.ndarray] = []  # [M, k] of each new token, if recorded
        self.known = self.searched = len(self.tokens)
        limit, budget = sampling.max_new_tokens, group.request.budget
        self.stop_at = limit if budget is None else min(limit, self.known + budget)
        self.uniforms = UniformStream(group.request.seed, index, start=self.known)
        self.reason: FinishReason | None = None
        if before is not None and before.finish_reason != "abort":
            self.reason = before.finish_reason
        elif self.known >= limit:
            self.reason = "length"

    @property
    def length(self) -> int:
        """Tokens so far, written before or now."""
        return len(self.tokens)

    def record(self, token: int, policy: float, sampler: float, *, version: int, stops: bool) -> None:
        """Append a token that policy `version` wrote; afterwards `reason` says whether the sample has ended."""
        last = self.segments[-1] if self.segments else None
        if last is None or last.version != version or not last.sampled or self.length == self.known:
            self.segments.append(Segment(start=self.length, stop=self.length + 1, version=version))
        self.tokens.append(token)
        self.policy.append(policy)
        self.sampler.append(sampler)
        if stops:
            self.reason = "stop"
        elif self.length >= self.stop_at:
            self.reason = "length" if self.stop_at == self.sampling.max_new_tokens else "abort"
        window = self.sampling.repeat_window
        if window and (self.reason or self.length - self.searched >= _LOOP_CHECK):
            self._end_loop(window)

    def _end_loop(self, window: int) -> None:
        end = find_loop(self.tokens, window=window, start=self.searched)
        self.searched = self.length
        if end is None or (self.reason == "stop" and end == self.length):
            return
        for values in (self.tokens, self.policy, self.sampler):
            del values[end:]
        del self.experts[end - self.known :]
        self.segments = [s for s in self.segments if s.start < end]
        self.reason = "repeat"

    def abort(self) -> None:
        """End with what there is."""
        if self.reason is None:
            self.reason = "abort"

    def completion(self) -> Completion:
        """The sample as it ended; what was finished before comes back as it is."""
        if self.before is not None and self.length == self.known and self.reason == self.before.finish_reason:
            return self.before
        assert self.reason is not None, "the sample still runs"
        stops = [*(s.start for s in self.segments), self.length][1:]
        policy, sampler = (np.array(values, dtype=np.float32) for values in (self.policy, self.sampler))
        return Completion(
            token_ids=np.array(self.tokens, dtype=np.int64),
            policy_logprobs=policy,
            sampler_logprobs=policy if np.array_equal(policy, sampler) else sampler,  # one array is sent once
            finish_reason=self.reason,
            segments=tuple(
                Segment(start=s.start, stop=stop, version=s.version, sampled=s.sampled)
                for s, stop in zip(self.segments, stops, strict=True)
            ),
            routed_experts=self._routes(),
        )

    def _routes(self) -> np.ndarray | None:
        if not self.experts:
            return self.before.routed_experts if self.before else None
        new = np.stack(self.experts)
        if not self.known or self.before is None:
            return new
        old = self.before.routed_experts
        if old is None:  # written by an engine that did not record
            old = np.full((self.known, *new.shape[1:]), np.iinfo(new.dtype).max, new.dtype)
        return np.concatenate((old, new))
