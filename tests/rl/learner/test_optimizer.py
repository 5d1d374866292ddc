"""Muon on every matrix of a fused tensor, AdamW on the rest; schedules by hand."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from rl_helpers import build_model

from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from rl.learner.lora import adapter_experts, prepare_training
from rl.learner.optimizer import (
    MuonWithAdamW,
    build_optimizer,
    build_schedule,
    is_matrix,
    learning_rate_factor,
    matrix_views,
    rounding_note,
)
from rl.safe_load import load_state

MUON = OptimizerConfig(name="muon", learning_rate=0.02, weight_decay=0.1)


def random_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def values(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_every_parameter_moves(model):
    optimizer = build_optimizer(model, MUON)
    before = values(model)
    random_gradients(model, 1)
    optimizer.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_views_share_the_parameters_memory(model):
    optimizer = build_optimizer(model, MUON)
    named = dict(model.named_parameters())
    experts = named["model.language_model.layers.1.mlp.experts.gate_up_proj"]
    count, width, _ = experts.shape
    views = matrix_views("x.gate_up_proj", experts.detach())
    assert [tuple(v.shape) for v in views] == [(width // 2, experts.shape[2])] * (2 * count)
    assert views[1].data_ptr() == experts[0, width // 2 :].data_ptr()
    own = [v for group in optimizer._views for v in group]
    pointers = {v.data_ptr() for v in own}
    assert {v.data_ptr() for v in views} <= pointers
    assert sum(v.numel() for v in own) == sum(p.numel() for n, p in named.items() if is_matrix(n, p))


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("model.language_model.layers.1.mlp.experts.gate_up_proj", lambda t: t[2, :24]),  # expert 2's gate
        ("model.language_model.layers.1.mlp.experts.gate_up_proj", lambda t: t[3, 24:]),  # expert 3's up
        ("model.language_model.layers.1.mlp.experts.down_proj", lambda t: t[1]),
        ("model.language_model.layers.0.mlp.gate_proj.weight", lambda t: t),
        ("model.mm_projector.in_proj.weight", lambda t: t),
    ],
)
def test_a_matrix_moves_as_if_it_were_alone(model, name, cut):
    """Three steps of `torch.optim.Muon` on that slice, with Moonlight's 0.2 sqrt(max(A, B))."""
    parameter = dict(model.named_parameters())[name]
    alone = torch.nn.Parameter(cut(parameter.detach()).clone())
    muon = torch.optim.Muon([alone], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimizer = build_optimizer(model, MUON)
    for step in range(3):
        random_gradients(model, step)
        alone.grad = cut(parameter.grad).clone()
        optimizer.step()
        muon.step()
    assert torch.equal(cut(parameter.detach()), alone.detach())


def test_the_update_has_moonlights_size():
    """RMS 0.2 lr for a matrix of any shape (Moonlight eq. 4), up to Newton-Schulz's singular values in 0.7 .. 1.2."""
    for shape in ((64, 16), (16, 64), (48, 48)):
        weight = torch.nn.Parameter(torch.zeros(shape))
        optimizer = MuonWithAdamW([("w", weight)], OptimizerConfig(name="muon", learning_rate=1.0))
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        assert 0.2 * 0.7 < weight.detach().square().mean().sqrt() < 0.2 * 1.2


def test_what_is_no_matrix_goes_to_adamw(model):
    named = dict(model.named_parameters())
    rest = {name: torch.nn.Parameter(p.detach().clone()) for name, p in named.items() if not is_matrix(name, p)}
    text = "model.language_model"
    assert {"lm_head.weight", f"{text}.embed_tokens.weight", f"{text}.norm.weight"} <= set(rest)
    assert {"model.vision_tower.patch_embed.proj.weight", "model.mm_projector.pre_norm.bias"} <= set(rest)
    assert "model.vision_tower.patch_embed.pos_emb.position_embeddings" in rest
    decayed = {"lm_head.weight", "model.vision_tower.patch_embed.proj.weight"}
    groups = [{"params": [p], "weight_decay": 0.1 if name in decayed else 0.0} for name, p in rest.items()]
    adamw = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), fused=True)
    optimizer = build_optimizer(model, MUON)
    for step in range(2):
        random_gradients(model, step)
        for name, parameter in rest.items():
            parameter.grad = named[name].grad.clone()
        optimizer.step()
        adamw.step()
    assert [name for name, p in rest.items() if not torch.equal(p, named[name])] == []


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_spares_norms_biases_and_embeddings(model, name):
    """Gradients of zero, a rate of 0.5 and a decay of 0.5: what decays is 0.75 of what it was, the rest stays."""
    optimizer = build_optimizer(model, OptimizerConfig(name=name, learning_rate=0.5, weight_decay=0.5))
    before = values(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    spared = {n for n, p in model.named_parameters() if torch.equal(p, before[n])}
    ending = ("norm.weight", "norm1.weight", "norm2.weight", "layernorm.weight", "bias", "embed_tokens.weight")
    expected = {n for n in before if n.endswith((*ending, "position_embeddings"))}
    assert spared == expected
    assert len(expected) < len(before)
    for n, p in model.named_parameters():
        assert n in spared or torch.allclose(p, 0.75 * before[n]), n


def test_frozen_parameters_stay(model):
    frozen = {n: p.requires_grad_(False).detach().clone() for n, p in model.named_parameters() if "vision_tower" in n}
    optimizer = build_optimizer(model, MUON)
    random_gradients(model, 0)
    optimizer.step()
    named = dict(model.named_parameters())
    assert all(torch.equal(named[n], value) for n, value in frozen.items())


def test_a_matrix_without_a_gradient_stays(model):
    """A step without images gives the vision tower no gradient: it must not even decay, as AdamW's part does not."""
    optimizer = build_optimizer(model, MUON)
    random_gradients(model, 0)
    optimizer.step()
    random_gradients(model, 1)
    tower = {n: p for n, p in model.named_parameters() if "vision_tower" in n}
    for parameter in tower.values():
        parameter.grad = None
    before = {n: p.detach().clone() for n, p in tower.items()}
    optimizer.step()
    assert [n for n, p in tower.items() if not torch.equal(p, before[n])] == []


@pytest.mark.parametrize("config", [MUON, OptimizerConfig(learning_rate=0.01)])
def test_a_restored_optimizer_goes_on_exactly(config):
    model = build_model()
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, total=9)
    random_gradients(model, 0)
    optimizer.step()
    schedule.step()
    buffer = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict(), schedule.state_dict()), buffer)
    buffer.seek(0)
    states = load_state(buffer)
    other = build_model(seed=9)
    other.load_state_dict(states[0])
    restored = build_optimizer(other, config)
    next_schedule = build_schedule(restored, config, total=9)
    restored.load_state_dict(states[1])
    next_schedule.load_state_dict(states[2])
    for step in (1, 2):
        for m, o, s in ((model, optimizer, schedule), (other, restored, next_schedule)):
            random_gradients(m, step)
            o.step()
            s.step()
    pairs = zip(model.named_parameters(), other.parameters(), strict=True)
    assert [name for (name, a), b in pairs if not torch.equal(a, b)] == []


def test_updates_that_bfloat16_would_swallow_are_told():
    """And they are swallowed: at this rate, 20 equal gradients leave nearly all weights as they were."""
    half, config = ModelConfig(dtype="bfloat16"), OptimizerConfig(learning_rate=1e-6)
    assert "rl.optimizer.state rounds stochastically" in rounding_note(half, config, stage="rl")
    muon = replace(config, name="muon")
    assert "long_cot.optimizer.name: adamw with" in rounding_note(half, muon, stage="long_cot")
    for model, optimizer in (
        (ModelConfig(), config),
        (replace(half, lora=LoraConfig()), config),
        (half, replace(config, state="8bit")),
        (half, replace(config, learning_rate=1e-3)),
    ):
        assert rounding_note(model, optimizer, stage="rl") is None
    for chosen in (config, muon):
        layer = torch.nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
        torch.nn.init.normal_(layer.weight, std=0.02, generator=torch.Generator().manual_seed(0))
        before, step = layer.weight.detach().clone(), build_optimizer(layer, chosen)
        for _ in range(20):
            layer.weight.grad = torch.ones_like(layer.weight)
            step.step()
        assert float((layer.weight == before).float().mean()) > 0.9


def test_the_schedule_steers_both_parts(model):
    config = OptimizerConfig(name="muon", learning_rate=0.02, warmup_steps=1, schedule="linear")
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, total=5)
    seen = []
    for _ in range(5):
        seen.append([group["lr"] for group in optimizer.param_groups])
        random_gradients(model, 0)
        optimizer.step()
        schedule.step()
    for factor, rates in zip([0.5, 1, 0.75, 0.5, 0.25], seen, strict=True):
        assert rates == pytest.approx([0.02 * factor] * 3), "Muon's matrices, and AdamW's two groups"
    restored = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(restored)
    build_schedule(optimizer, config, total=5)
    assert optimizer._muon.param_groups[0] is optimizer.param_groups[0], "a restored optimizer is steered too"


def factors(total, **options):
    config = OptimizerConfig(**options)
    return [learning_rate_factor(step, total=total, config=config) for step in range(total)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup_steps": 3}, [1 / 4, 2 / 4, 3 / 4, 1]),
        ({"schedule": "linear"}, [1, 3 / 4, 2 / 4, 1 / 4]),
        ({"schedule": "linear", "warmup_steps": 2}, [1 / 3, 2 / 3, 1, 1 / 2]),
        ({"schedule": "cosine"}, [1, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5]),
        ({"schedule": "linear", "final_fraction": 0.2}, [1, 0.8, 0.6, 0.4]),
    ],
)
def test_learning_rates_by_hand(options, expected):
    assert factors(4, **options) == pytest.approx(expected)


def test_no_step_is_wasted_at_rate_zero():
    for schedule in ("linear", "cosine"):
        assert min(factors(20, schedule=schedule, warmup_steps=5)) > 0
    assert learning_rate_factor(99, total=20, config=OptimizerConfig(schedule="linear", final_fraction=0.3)) == 0.3
    assert factors(1, warmup_steps=50) == pytest.approx([1 / 51])


def test_the_matrices_of_an_experts_adapter_make_its_delta(model):
    prepare_training(model, ModelConfig(lora=LoraConfig(rank=2, targets=("experts",))), base="made")
    experts = adapter_experts(model)
    assert set(experts) == {n for n, p in model.named_parameters() if "lora_" in n}
    for name, count in experts.items():
        layer = dict(model.named_modules())[name.rpartition(".lora_")[0]]
        torch.nn.init.normal_(layer.lora_B["default"].weight)
        a, b = (layer.get_submodule(f"{half}.default").weight.detach() for half in ("lora_A", "lora_B"))
        matrices_a = matrix_views(name.replace("lora_B", "lora_A"), a, experts)
        matrices_b = matrix_views(name.replace("lora_A", "lora_B"), b, experts)
        made = torch.stack([b @ a for a, b in zip(matrices_a, matrices_b, strict=True)])
        delta = layer.get_delta_weight("default").detach() / layer.scaling["default"]
        assert made.shape[0] == count
        assert torch.allclose(delta if delta.shape == made.shape else delta.mT, made, atol=1e-5)


@pytest.mark.parametrize("expert", [0, 3])
@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_the_adapter_of_an_expert_moves_as_if_it_were_alone(model, part, expert):
    prepare_training(model, ModelConfig(lora=LoraConfig(rank=2, targets=("experts",))), base="made")
    name, parameter = next((n, p) for n, p in model.named_parameters() if f".experts.{part}." in n)
    count = adapter_experts(model)[name]

    def cut(tensor):
        return tensor[2 * expert : 2 * expert + 2] if part == "lora_A" else tensor[:, expert::count]

    alone = torch.nn.Parameter(cut(parameter.detach()).clone())
    muon = torch.optim.Muon([alone], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimizer = build_optimizer(model, MUON)
    for step in range(3):
        random_gradients(model, step)
        alone.grad = cut(parameter.grad).clone()
        optimizer.step()
        muon.step()
    assert torch.allclose(cut(parameter.detach()), alone.detach(), atol=1e-6)
