"""Routed experts of vLLM's own sampler: which rows they are, and that the learner takes them again.

vLLM's CPU build returns none. Here they come from our model, in vLLM's layout, so that everything behind it is tested.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm_helpers import flat, learner_logprobs, requests_for

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.engines.engine_spec import EngineSpec
from rollouts.engines.protocol import EngineError
from rollouts.model_family import family_of
from rollouts.types import Request

pytestmark = pytest.mark.timeout(900)
WARM = SamplingConfig(max_new_tokens=12, temperature=0.7)
THRESHOLD = 1e-3


def all_experts(model, ids):
    """`[positions, layers, k]` of all layers, as vLLM counts them: a dense layer has zeros."""
    text, routing = model.config.text_config, family_of(model.config).new_routing()
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids]), routing=routing)
    found = np.zeros((len(ids), text.num_hidden_layers, text.num_experts_per_tok), np.uint8)
    for layer, routes in routing.seen.items():
        found[:, text.first_k_dense_replace + layer] = routes.taken.numpy()
    return found


@pytest.fixture
def returned(native, model, monkeypatch):
    """vLLM that returns experts; `change` may replace them.

    The output that ends a request brings those of its inputs from `routed_experts_prompt_start` on, all but the last
    token; until then they stand in the state of the request.
    """
    vllm, started, source = native.engine._vllm, {}, SimpleNamespace(change=lambda experts: experts)
    own_step, own_add = vllm.step, vllm.add_request

    def rows(name, tokens):
        prompt, params = started[name]
        experts = source.change(all_experts(model, [*prompt, *tokens]))
        return experts[params.routed_experts_prompt_start : len(prompt) + len(tokens) - 1]

    def add_request(name, inputs, params):
        started[name] = (inputs["prompt_token_ids"], params)
        own_add(name, inputs, params)

    def step():
        outputs = own_step()
        for output in outputs:
            if output.finished:
                sample = native.engine._running[output.request_id]
                tokens = [*sample.tokens[sample.known :], *output.outputs[0].token_ids]
                output.outputs[0].routed_experts = rows(output.request_id, tokens)
        for state in vllm.output_processor.request_states.values():
            if tokens := list(state.detokenizer.output_token_ids):
                state.routed_experts_chunks[:] = [rows(state.external_req_id, tokens)]
        return outputs

    monkeypatch.setattr(vllm, "step", step)
    monkeypatch.setattr(vllm, "add_request", add_request)
    monkeypatch.setattr(native.engine, "_record_experts", True)
    return source


def check_rows(completion, prompt, model):
    """Row t is of the input that predicts token t; layers without experts are left out."""
    start, dense = len(prompt.input_ids) - 1, model.config.text_config.first_k_dense_replace
    expected = all_experts(model, [*prompt.input_ids.tolist(), *completion.token_ids.tolist()])
    assert completion.routed_experts.dtype == np.uint8
    assert np.array_equal(completion.routed_experts, expected[start : start + len(completion.token_ids), dense:])


def test_the_learner_takes_the_experts_that_vllm_returns(native, returned, model, checkpoint, ids, prompts):
    """Those of the model that generated leave its log-probs; others move them far."""
    text, gaps = prompts[:1], []
    for changed in (False, True):
        if changed:
            returned.change = lambda experts: (experts + 1) % model.config.text_config.n_routed_experts
        results = native.generate(requests_for(text), WARM)
        if not changed:
            for completion in flat(results):
                check_rows(completion, text[0], model)
        own = learner_logprobs(load_model(checkpoint), text, results, ids[1], WARM.temperature, replay=True)
        pairs = zip(own, flat(results), strict=True)
        gaps.append(max(float(np.abs(a - c.policy_logprobs).max()) for a, c in pairs))
    assert gaps[0] < THRESHOLD
    assert gaps[1] > 0.01


def test_pieces_and_aborted_samples_keep_their_experts(native, returned, model, prompts):
    """A sample that ends with its budget, goes on, and is called off has the rows of all its tokens."""
    prompt, engine = prompts[0], native.engine
    (piece,) = native.generate(requests_for(prompts[:1], budget=5), WARM)
    (whole,) = native.generate([Request(prompt=prompt, n=3, seed=100, prefixes=tuple(piece))], WARM)
    for completion in (*piece, *whole):
        check_rows(completion, prompt, model)
    assert any(len(b.token_ids) > len(a.token_ids) for a, b in zip(piece, whole, strict=True))

    engine.add(10_000, Request(prompt=prompt, n=2, seed=3), SamplingConfig(max_new_tokens=40))
    for _ in range(4):
        assert not engine.step()
    [(_, called_off)] = engine.cancel([10_000])
    assert {c.finish_reason for c in called_off} == {"abort"}
    for completion in called_off:
        check_rows(completion, prompt, model)


def test_a_cpu_refuses_when_it_starts(checkpoint, ids):
    spec = EngineSpec(
        model_path=str(checkpoint),
        dtype="float32",
        stop_ids=ids[0],
        barred_ids=ids[1],
        engine="vllm",
        record_experts=True,
        options={"sampler": "native"},
    )
    with pytest.raises(EngineError, match=r"rl\.router_replay = true: .* needs Triton, .* rl\.engine: transformers"):
        spec.build()
