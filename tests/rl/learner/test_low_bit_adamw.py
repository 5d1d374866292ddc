"""AdamW's moments in 8 bits, bfloat16 and float32: convergence, bytes, resuming, and small steps in bfloat16."""

import copy
import io
import sys

import pytest
import torch
from rl_helpers import build_model, make_learner, make_samples

from configs.algorithms import LossConfig
from configs.critic import CriticConfig
from configs.errors import ConfigError, UserError
from configs.load import load_recipe
from configs.optimizer import OptimizerConfig
from rl.distributed.sharded_checkpoint import cut_state
from rl.learner.optimizer import build_optimizer, build_schedule
from rl.safe_load import load_state

STATES = ("float32", "bfloat16", "8bit")


@pytest.fixture
def torchao():
    return pytest.importorskip("torchao", reason="pip install 'thinkvl[lean]'")


def fit(state, steps=150):
    """Least squares of a 64 x 64 matrix; the mean squared error of the end, and the optimizer."""
    generator = torch.Generator().manual_seed(0)
    inputs, truth = torch.randn(256, 64, generator=generator), torch.randn(64, 64, generator=generator)
    layer = torch.nn.Linear(64, 64, bias=False)
    torch.nn.init.zeros_(layer.weight)
    config = OptimizerConfig(learning_rate=0.05, state=state, schedule="linear")
    optimizer = build_optimizer(layer, config)
    schedule = build_schedule(optimizer, config, total=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (layer(inputs) - inputs @ truth).square().mean().backward()
        optimizer.step()
        schedule.step()
    return float((layer.weight - truth.T).square().mean().detach()), optimizer


def moment_bytes(optimizer):
    def size(t):
        return sum(getattr(t, a).nbytes for a in t.tensor_attrs) if hasattr(t, "tensor_attrs") else t.nbytes

    moments = [v for s in optimizer.state.values() for n, v in s.items() if n != "step"]
    return sum(map(size, moments))


@pytest.mark.parametrize("state", STATES)
def test_it_converges_as_float32_does_on_its_share_of_the_bytes(torchao, state):
    plain, reference = fit(None)
    error, optimizer = fit(state)
    assert plain < 1e-2
    assert error < 2 * plain + 1e-4
    whole = 2 * 64 * 64 * 4
    assert moment_bytes(reference) == whole
    tables = 2 * 256 * 4  # the 8-bit codes' values, once a moment
    expected = {"float32": whole, "bfloat16": whole / 2, "8bit": whole / 4 + 2 * 16 * 4 + tables}[state]
    assert moment_bytes(optimizer) == expected


def test_float32_moments_take_the_steps_of_torchs_own(torchao):
    plain, lean = (torch.nn.Parameter(torch.linspace(-1, 1, 50).reshape(5, 10)) for _ in range(2))
    config = OptimizerConfig(learning_rate=0.01, weight_decay=0.1)
    torchs = torch.optim.AdamW([plain], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    holder = torch.nn.Module()
    holder.weight = lean
    ours = build_optimizer(holder, OptimizerConfig(learning_rate=0.01, weight_decay=0.1, state="float32"))
    assert config.state is None
    for step in range(20):
        plain.grad = torch.randn(5, 10, generator=torch.Generator().manual_seed(step))
        lean.grad = plain.grad.clone()
        torchs.step()
        ours.step()
    assert torch.allclose(plain, lean, atol=1e-6)


@pytest.mark.parametrize("state", [None, *STATES])
def test_steps_below_the_resolution_of_bfloat16_are_not_lost(torchao, state):
    """From 1 with a constant gradient, 40 steps of 1e-3 to 0.96; bfloat16 holds 1 and 0.996, and nothing between."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(128, 64, bias=False, dtype=torch.bfloat16)
    torch.nn.init.ones_(layer.weight)
    optimizer = build_optimizer(layer, OptimizerConfig(learning_rate=1e-3, state=state))
    for _ in range(40):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
    mean = float(layer.weight.float().mean().detach())
    assert mean == (1.0 if state is None else pytest.approx(0.96, abs=0.002))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", STATES)
def test_a_restored_learner_goes_on_bit_for_bit(torchao, rng, state, dtype):
    options = {"optimizer": OptimizerConfig(learning_rate=1e-3, warmup_steps=3, state=state), "minibatches": 2}
    model = build_model(dtype=dtype)
    steps = [make_samples(rng, model) for _ in range(3)]
    learner = make_learner(model, **options)
    learner.update(steps[0])
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    values = [learner.update(s) for s in steps[1:]]
    buffer.seek(0)
    restored = make_learner(build_model(seed=5, dtype=dtype), **options)
    restored.load_state_dict(load_state(buffer))
    torch.manual_seed(99)  # another process has drawn other numbers
    assert [restored.update(s) for s in steps[1:]] == values
    theirs = restored.model.state_dict()
    assert not [n for n, t in learner.model.state_dict().items() if not torch.equal(t, theirs[n])]


def test_a_reset_optimizer_keeps_its_schedule(torchao, rng, model):

    loss = LossConfig(algorithm="kimi_k15", reset_optimizer=True)
    optimizer = OptimizerConfig(learning_rate=1e-3, schedule="linear", state="8bit")
    learner = make_learner(model, loss=loss, optimizer=optimizer, minibatches=2)
    samples = make_samples(rng, model)
    rates = [learner.update(samples)["learning_rate"] for _ in range(3)]
    assert rates == pytest.approx([0.95e-3, 0.75e-3, 0.55e-3])


def test_without_torchao_it_is_told_how_to_get_it(monkeypatch, model):
    for name in [n for n in sys.modules if n == "rl.learner.low_bit_adamw" or n.split(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UserError, match=r"optimizer.state = '8bit' needs torchao.*pip install 'thinkvl\[lean\]'"):
        build_optimizer(model, OptimizerConfig(state="8bit"))


def test_the_plain_one_is_fused(model):
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1e-3))
    assert all(group["fused"] for group in optimizer.param_groups)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []


def test_muon_has_no_such_key(tmp_path):
    recipe = tmp_path / "made.yaml"
    recipe.write_text("name: a\noutput_dir: b\nstages: [{kind: rl, steps: 1, optimizer: {name: muon, state: 8bit}}]\n")
    with pytest.raises(ConfigError, match="state = '8bit': must be left out with muon"):
        load_recipe(recipe)


def test_the_critics_copy_of_a_bfloat16_policy_learns_too(torchao):
    """Its moments are of the recipe's type, and no small step is lost."""
    loss = LossConfig(algorithm="ppo", critic=CriticConfig(backbone="own", value_learning_rate=1e-5))
    still = {}
    for state in (None, "bfloat16"):
        options = {"loss": loss, "optimizer": OptimizerConfig(learning_rate=1e-6, state=state), "total_steps": 100}
        critic = make_learner(build_model(dtype=torch.bfloat16), **options).critic
        weight = critic.backbone.model.get_parameter("language_model.layers.0.self_attn.o_proj.weight")
        before = weight.detach().clone()
        for _ in range(40):
            weight.grad = torch.ones_like(weight)
            critic.finish_step(grad_clip=1e9)
        still[state] = float((weight == before).float().mean())
        assert critic.optimizer.state[weight]["exp_avg"].dtype == torch.bfloat16
    assert still[None] > 0.8
    assert still["bfloat16"] < 0.5


def test_8_bit_moments_of_one_process_are_refused_by_ranks(torchao, rng):
    sizes = {"optimizer": OptimizerConfig(learning_rate=1e-3, state="8bit")}
    learner = make_learner(build_model(), **sizes)
    learner.update(make_samples(rng, learner.model))
    with pytest.raises(UserError, match=r"cannot be cut for ranks. Go on with rl.ranks.count = 1"):
        cut_state(learner.state_dict(), learner.optimizer, mesh=None)
