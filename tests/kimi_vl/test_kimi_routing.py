"""The mixture of experts: kernels that agree, a router in float32, replayed experts, and recorded routes."""

import copy

import pytest
import torch

from kimi_vl import load_model
from kimi_vl.routing_kimi_vl import KimiVLMoE, Routing

LAYERS, EXPERTS, TOP = 2, 6, 2


@pytest.fixture
def embeds(model, prompt):
    with torch.no_grad():
        return model.embed(
            prompt["input_ids"][1:],
            model.encode_images(prompt["pixel_values"], prompt["image_grid_hws"])[
                int((prompt["input_ids"][0] == model.config.image_token_id).sum()) :
            ],
        )


def passed(model, embeds, routing=None):
    """Last hidden states and the gradient of their squares, by parameter name."""
    model.zero_grad()
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False, routing=routing).last_hidden_state
    hidden.square().mean().backward()
    return hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def apart(one, other):
    """Largest difference of outputs and of gradients, each relative to its largest number."""
    (hidden, grads), (hidden_2, grads_2) = one, other
    assert grads.keys() == grads_2.keys()
    pairs = [(hidden, hidden_2), *((grads[n], grads_2[n]) for n in grads)]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)


def recorded(routing):
    """The experts that a pass used, in the form that a replay takes."""
    return torch.stack([routing.seen[layer].taken for layer in range(LAYERS)], 1)


def moe_layers(model):
    return [m for m in model.modules() if isinstance(m, KimiVLMoE)]


def test_kernels_agree_forward_and_backward(folder, embeds):
    """Each kernel's error against the loop in float64 is at most twice that of the loop in float32."""
    exact = passed(load_model(folder, experts="eager").double(), embeds.double())
    plain = apart(passed(load_model(folder, experts="eager"), embeds), exact)
    assert plain < 1e-5
    for kernel in (None, "batched_mm"):
        model = load_model(folder, experts=kernel)
        if kernel is None:
            assert model.config.text_config._experts_implementation == "grouped_mm", "what a run trains with"
        assert apart(passed(model, embeds), exact) < 2 * plain, kernel
    assert apart(passed(model.double(), embeds.double()), exact) < 1e-12, "batched_mm; grouped_mm takes no float64"


@pytest.mark.parametrize("autocast", [False, True])
def test_the_router_computes_in_float32(folder, embeds, autocast):
    model = load_model(folder, dtype=torch.bfloat16)
    seen = []
    for layer in moe_layers(model):
        layer.gate.register_forward_hook(lambda gate, args, output: seen.append((gate, args[0], output)))
        assert layer.gate.e_score_correction_bias.dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        model.model.language_model(inputs_embeds=embeds.bfloat16(), use_cache=False)
    assert len(seen) == LAYERS
    for gate, hidden, (logits, weights, _) in seen:
        exact = hidden.double() @ gate.weight.double().T
        assert logits.dtype == weights.dtype == torch.float32
        assert (logits - exact).abs().max() < 1e-5 * exact.abs().max()
        assert (logits.bfloat16() - exact).abs().max() > 1e-3 * exact.abs().max(), "bfloat16 would be seen"


def test_replaying_its_own_experts_changes_nothing(model, embeds):
    first = Routing()
    plain = passed(model, embeds, first)
    assert torch.equal(plain[0], passed(model, embeds)[0]), "watching changes nothing"
    again = Routing(replay=recorded(first))
    assert apart(passed(model, embeds, again), plain) < 1e-6
    assert all(torch.equal(again.seen[i].taken, first.seen[i].taken) for i in range(LAYERS))
    reversed_order = Routing(replay=recorded(first).flip(-1))
    assert apart(passed(model, embeds, reversed_order), plain) < 2e-6


def test_replayed_experts_are_used_with_the_current_routers_weights(model, embeds):
    """By hand: sum over the given experts of s / sum(s) * scale times their output, plus the shared experts."""
    layer = moe_layers(model)[0]
    hidden = embeds[0].detach()
    tokens = len(hidden)
    generator = torch.Generator().manual_seed(0)
    given = torch.stack([torch.randperm(EXPERTS, generator=generator)[:TOP] for _ in range(tokens)])
    given[3:5] = -1
    routing = Routing(replay=given[:, None], keep_scores=True)
    output = layer(hidden[None], routing=routing, layer=0)[0]
    logits, _, own = layer.gate(hidden)
    taken = torch.where(given >= 0, given, own)
    assert torch.equal(routing.seen[0].taken, taken)
    assert torch.equal(routing.seen[0].own, own)
    scores = logits.sigmoid()
    assert torch.equal(routing.seen[0].scores, scores)
    expected = layer.shared_experts(hidden)
    for token in range(tokens):
        weights = scores[token, taken[token]]
        weights = weights / weights.sum() * layer.gate.routed_scaling_factor
        for weight, expert in zip(weights, taken[token], strict=True):
            gate, up = (layer.experts.gate_up_proj[expert] @ hidden[token]).chunk(2)
            out = layer.experts.down_proj[expert] @ (torch.nn.functional.silu(gate) * up)
            expected[token] = expected[token] + weight * out
    assert (output - expected).abs().max() < 1e-5
    model.zero_grad()
    output.square().sum().backward()
    assert layer.gate.weight.grad.abs().max() > 0, "the router learns through the weights of experts it did not choose"


def test_other_experts_give_another_answer(model, embeds):
    first = Routing()
    plain, _ = passed(model, embeds, first)
    other = (recorded(first) + 1) % EXPERTS
    assert (passed(model, embeds, Routing(replay=other))[0] - plain).abs().max() > 0.01


@pytest.mark.parametrize("replays", [False, True])
def test_checkpointing_gives_the_same_gradient(model, embeds, replays):
    other = copy.deepcopy(model).train()
    other.activation_checkpointing_enable({"use_reentrant": False})
    first = Routing()
    passed(model, embeds, first)
    replay = (recorded(first) + 1) % EXPERTS if replays else None
    runs = [0]
    moe_layers(other)[0].gate.register_forward_hook(lambda *_: runs.append(1))
    watched = Routing(replay=replay)
    assert apart(passed(other, embeds, watched), passed(model, embeds, Routing(replay=replay))) == 0
    assert sum(runs) == 2, "the layer was computed again"
    assert list(watched.seen) == [0, 1]


def test_the_layers_report_hidden_states_and_router_logits(model, embeds):
    with torch.no_grad():
        output = model.model.language_model(
            inputs_embeds=embeds, use_cache=False, output_hidden_states=True, output_router_logits=True
        )
    assert len(output.hidden_states) == 1 + model.config.text_config.num_hidden_layers
    assert len(output.router_logits) == LAYERS
