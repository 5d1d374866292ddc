"""Weights to the workers, and the proof that they arrived: the same prompts scored on both sides."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from configs.errors import UserError
from configs.rl import SamplingConfig
from rewards.types import Task
from rl.learner.protocol import LearnerProtocol
from rl.types import PromptCompletion
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Prompt, Request
from rollouts.weight_checksums import differing
from rollouts.weight_stream import Bucket
from rollouts.workers.pool import RolloutPool

USUAL_THRESHOLD = {"float32": 1e-3, "bfloat16": 0.1}  # of a log-prob; several times what rounding makes
TOKENS = 8  # of each answer that is compared
NAMED = 8  # tensors named in the error


class ParityError(UserError):
    """Learner and engine disagree after a full resync; names the tensors that differ and the gap."""


def parity_prompts(renderer: PromptRenderer) -> list[Prompt]:
    """A question in words and one about a picture, the same for every run."""
    shades = np.linspace(0, 255, 56 * 84, dtype=np.uint8).reshape(56, 84)
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "PNG")
    unlimited = PromptRenderer(renderer.processor, max_prompt_tokens=1 << 20)
    return [
        unlimited.render(Task(id=f"parity/{i}", source="parity", question=question, answer="", images=images))
        for i, (question, images) in enumerate(
            [("What is 7 + 4?", ()), ("What is in the picture?", (file.getvalue(),))]
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSync:
    """Publishes the learner's weights and proves it: every worker answers the parity prompts, and the learner scores
    the same tokens. A gap above `threshold` (0: no check) leads to one full resync, then to ParityError.

    The gap is the largest of any token, or, where `typical`, the median: in bfloat16 rounding changes a routed expert
    here and there, which moves single tokens far; wrong weights move all of them.
    """

    pool: RolloutPool
    learner: LearnerProtocol
    prompts: Sequence[Prompt]
    sampling: SamplingConfig  # of the rollouts: log-probs are under its temperature
    threshold: float
    say: Callable[[str], None]
    typical: bool = False

    def publish(self) -> dict[str, float]:
        """Send the weights under the learner's version. Returns the speed and the gap; see docs/metrics.md."""
        metrics = self._send()
        if self.threshold == 0:
            return metrics
        gap = self.gap()
        if not gap <= self.threshold:
            self.say(f"parity: log-probs of version {self.learner.version} differ by {gap:.2g}; sending all again")
            self._send()
            gap = self.gap()
            if not gap <= self.threshold:
                raise ParityError(self._verdict(gap))
        return metrics | {"parity_gap": gap}

    def _send(self) -> dict[str, float]:
        """Publish all weights; the bytes of one copy a second, gathered, sent, loaded and proven by every worker."""
        began, stream = time.perf_counter(), self.learner.weight_stream(self.pool.dtype)
        size = 0

        def counted() -> Iterator[Bucket]:
            nonlocal size
            for bucket in stream.buckets:
                size += sum(sent.nbytes for sent in bucket.tensors)
                yield bucket

        self.pool.publish(replace(stream, buckets=counted()), version=self.learner.version)
        return {"publish_gb_per_second": size / 1e9 / (time.perf_counter() - began)}

    def gap(self) -> float:
        """Distance of a token's log-prob between the worst worker and the learner; infinite for a stale worker."""
        requests = [Request(prompt=p, n=1, seed=i) for i, p in enumerate(self.prompts)]
        limits = replace(self.sampling, max_new_tokens=min(TOKENS, self.sampling.max_new_tokens))
        answers = self.pool.generate_on_each(requests, limits)
        pairs = [(p, c) for worker in answers for p, own in zip(self.prompts, worker, strict=True) for c in own]
        if any(s.version != self.learner.version for _, c in pairs for s in c.segments):
            return float("inf")
        expected = self.learner.logprobs(
            [
                PromptCompletion(id=str(place), prompt=p, token_ids=c.token_ids, experts=c.routed_experts)
                for place, (p, c) in enumerate(pairs)
            ]
        )
        gaps = [np.abs(own - c.policy_logprobs) for own, (_, c) in zip(expected, pairs, strict=True)]
        of_tokens, each = np.median if self.typical else np.max, len(self.prompts)
        return max(float(of_tokens(np.concatenate(gaps[at : at + each]))) for at in range(0, len(gaps), each))

    def _verdict(self, gap: float) -> str:
        stream = self.learner.weight_stream(self.pool.dtype)
        own = {sent.name: sent.checksum for bucket in stream.buckets for sent in bucket.tensors}
        named = []
        for slot, served in enumerate(self.pool.worker_group.weight_checksums()):
            names = differing(own, served)
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                named.append(f"worker {slot} holds other values of {', '.join(names[:NAMED])}{more}")
        return (
            f"after a full resync of version {self.learner.version}, engine and learner still differ by {gap:.3g} in a "
            f"token's log-prob (rl.parity_threshold = {self.threshold:g}): "
            + ("; ".join(named) or "all tensors are equal, so the two compute different things with the same weights")
        )
