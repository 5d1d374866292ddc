"""A think block that is closed from outside: what is kept, what is marked, and that the answer goes on from there."""

import numpy as np
import pytest
import torch
from engine_helpers import engine_of, requests_for

from configs.rl import SamplingConfig
from rollouts.engines.sampling import policy_logprobs
from rollouts.sources.thinking import close_thinking
from rollouts.types import Completion, Request, Segment

ANSWER = Completion(
    token_ids=np.array([5, 6, 7, 8, 9]),
    policy_logprobs=np.array([-1, -2, -3, -4, -5], np.float32),
    sampler_logprobs=np.array([-0.5, -1, -1.5, -2, -2.5], np.float32),
    finish_reason="stop",
    segments=(Segment(start=0, stop=2, version=3), Segment(start=2, stop=5, version=4)),
    routed_experts=np.arange(10, dtype=np.uint8).reshape(5, 1, 2),
)


@pytest.mark.parametrize(
    ("at", "segments"),
    [
        (1, [(0, 1, 3, True), (1, 3, 3, False)]),
        (2, [(0, 2, 3, True), (2, 4, 3, False)]),
        (4, [(0, 2, 3, True), (2, 4, 4, True), (4, 6, 4, False)]),
    ],
)
def test_by_hand(at, segments):
    closed = close_thinking(ANSWER, at=at, close_ids=[70, 71])
    assert closed.token_ids.tolist() == [*[5, 6, 7, 8, 9][:at], 70, 71]
    assert closed.policy_logprobs.tolist() == [*[-1, -2, -3, -4, -5][:at], 0, 0]
    assert closed.sampler_logprobs.tolist() == [*[-0.5, -1, -1.5, -2, -2.5][:at], 0, 0]
    assert [(s.start, s.stop, s.version, s.sampled) for s in closed.segments] == segments
    assert closed.sampled_mask.tolist() == [True] * at + [False, False]
    assert closed.routed_experts.tolist() == ANSWER.routed_experts.tolist()[:at] + [[[255, 255]]] * 2
    assert closed.finish_reason == "abort"


@pytest.mark.parametrize("at", [0, 5, 9, -1])
def test_only_inside_the_answer(at):
    with pytest.raises(ValueError, match="between 1 and 4, inside the completion"):
        close_thinking(ANSWER, at=at, close_ids=[70])


def test_the_answer_goes_on_after_the_mark(tiny_model, tiny_ids, prompts):
    """Log-probs of what follows are those of a plain pass over prompt, thinking, mark and answer."""
    sampling = SamplingConfig(temperature=0.9, max_new_tokens=16)
    engine = engine_of(tiny_model, tiny_ids)
    request = requests_for([prompts[1]], n=2)[0]
    [free] = engine.generate([request], sampling)
    cut = tuple(close_thinking(c, at=6, close_ids=[40, 41, 42]) for c in free)
    [forced] = engine.generate([Request(prompt=prompts[1], n=2, seed=request.seed, prefixes=cut)], sampling)
    for completion, before in zip(forced, cut, strict=True):
        assert completion.token_ids[:9].tolist() == before.token_ids.tolist()
        assert len(completion.token_ids) == 16, "the mark counts as tokens of the answer"
        assert [(s.start, s.stop, s.sampled) for s in completion.segments] == [(0, 6, 1), (6, 9, 0), (9, 16, 1)]
        ids = torch.from_numpy(np.concatenate([prompts[1].input_ids, completion.token_ids]))[None]
        with torch.no_grad():
            logits = tiny_model(
                input_ids=ids,
                pixel_values=torch.from_numpy(prompts[1].pixel_values),
                image_grid_hws=torch.from_numpy(prompts[1].image_grid_hws),
            ).logits[0, len(prompts[1].input_ids) - 1 : -1]
        barred = torch.zeros(logits.shape[-1], dtype=torch.bool)
        barred[[*tiny_ids[0], *tiny_ids[1]]] = True
        table = policy_logprobs(logits, 0.9, barred)
        expected = table.gather(-1, torch.from_numpy(completion.token_ids)[:, None])[:, 0].numpy()
        sampled = completion.sampled_mask
        assert np.abs(completion.policy_logprobs - expected)[sampled].max() < 1e-4
        assert (completion.policy_logprobs[~sampled] == 0).all()
