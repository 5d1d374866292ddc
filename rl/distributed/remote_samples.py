"""Samples of a step for ranks: every rank gets the headers, from which all plan alike, and fetches its own share.

A prompt is put into Ray's object store once for all calls of a step, and the samples of each prompt once a call.
A node so receives what its ranks train on; of a prompt whose samples ranks share, each fetches all samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from rewards.types import Task
from rl.learner.batch import by_prompt
from rl.types import PromptCompletion, PromptHeader, SampleHeader
from rollouts.patches import Patches
from rollouts.types import Prompt

_ELSEWHERE = Prompt(  # stands for the prompt in samples that are sent, since the prompt is sent apart
    id="",
    task=Task(id="", source="", question="", answer=""),
    input_ids=np.zeros(0, np.int64),
    patches=Patches(np.zeros((0, 1, 1, 1), np.float32)),
    image_grid_hws=np.zeros((0, 2), np.int64),
)


class RemoteSamples:
    """Puts samples into the object store for the ranks, in the driver. Prompts stay there until `forget`."""

    def __init__(self) -> None:
        self._prompts: dict[str, tuple[Prompt, Any]] = {}  # by id: the prompt, and its reference

    def put(self, samples: Sequence[PromptCompletion]) -> list[SampleHeader]:
        """The header of each sample, in order. What they refer to lives as long as they do."""
        found: dict[int, SampleHeader] = {}
        for group in by_prompt(samples):
            prompt = group[0].prompt
            header = PromptHeader(
                id=prompt.id,
                tokens=prompt.tokens,
                image_grid_hws=prompt.image_grid_hws,
                prompt_ref=self._prompt_ref(prompt),
                samples_ref=ray.put({sample.id: replace(sample, prompt=_ELSEWHERE) for sample in group}),
            )
            found |= {id(sample): _header(sample, header) for sample in group}
        return [found[id(sample)] for sample in samples]

    def forget(self) -> None:
        """Drop the prompts: the step is over."""
        self._prompts.clear()

    def _prompt_ref(self, prompt: Prompt) -> Any:
        known = self._prompts.get(prompt.id)
        if known is None or known[0] is not prompt:
            known = self._prompts[prompt.id] = prompt, ray.put(prompt)
        return known[1]


def fetch_samples(headers: Sequence[SampleHeader]) -> list[PromptCompletion]:
    """The samples that `headers` stand for, in order. Arrays are read-only, and lie in the node's object store."""
    prompts = {header.prompt.id: header.prompt for header in headers}
    pairs = ray.get([ref for p in prompts.values() for ref in (p.prompt_ref, p.samples_ref)])
    found = dict(zip(prompts, zip(pairs[::2], pairs[1::2], strict=True), strict=True))
    whole = []
    for header in headers:
        prompt, samples = found[header.prompt.id]
        whole.append(replace(samples[header.id], prompt=prompt))
    return whole


def _header(sample: PromptCompletion, prompt: PromptHeader) -> SampleHeader:
    return SampleHeader(
        id=sample.id,
        prompt=prompt,
        response_tokens=sample.response_tokens,
        trainable_tokens=sample.trainable_tokens,
        sft_mask=bool(getattr(sample, "sft_mask", False)),
    )
