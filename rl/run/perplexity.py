"""The perplexity of held-out documents."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import torch

from rl.learner.batch import dummy_sample
from rl.learner.model_outputs import OutputReader
from rl.learner.packed_attention import use_packed_attention
from rl.learner.parallel import SINGLE_PROCESS
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageModel

_TOGETHER = 32  # documents whose images are encoded together


def perplexities(model: VisionLanguageModel, documents: Sequence[PromptCompletion], *, budget: int) -> dict[str, float]:
    """The perplexity of each data source's text: `exp` of the mean negative log-likelihood of its tokens.

    `documents` are as `rl.run.document_rendering` gives them; `budget` is the most packed tokens of a forward pass.
    """
    use_packed_attention(model.text_model)
    no_token = torch.zeros(model.config.text_config.vocab_size, dtype=torch.bool, device=model.device)
    reader = OutputReader(
        model,
        None,
        None,
        SINGLE_PROCESS,
        plan=partial(SINGLE_PROCESS.plan, config=model.config, budget=budget, dummy=dummy_sample(0, model.config)),
        head=partial(SINGLE_PROCESS.token_logprobs, temperature=1.0, barred=no_token),
        wants_policy=False,
    )
    total: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    for start in range(0, len(documents), _TOGETHER):
        together = documents[start : start + _TOGETHER]
        for part, logprobs in zip(together, reader.policy_logprobs(together), strict=True):
            total[part.prompt.task.source] -= float(logprobs.sum(dtype=float))
            tokens[part.prompt.task.source] += len(logprobs)
    return {source: math.exp(total[source] / count) for source, count in sorted(tokens.items())}
