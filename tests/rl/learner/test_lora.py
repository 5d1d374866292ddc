"""LoRA: only adapters learn, merged weights compute what the adapted model computes, and peft reads what is saved."""

import copy
import io
import weakref

import numpy as np
import pytest
import torch
from peft import PeftModel
from rl_helpers import barred_ids, build_model, make_learner, make_prompt, make_samples, new_id

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.errors import UserError
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from configs.rl import SamplingConfig
from kimi_vl import load_model
from rl.learner.lora import adapted_layers, merged_weights, prepare_training, save_adapters
from rl.safe_load import load_state
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.types import Request

ALL = LoraConfig(rank=3, alpha=7.5, targets=("attention", "mlp", "experts", "vision"))


def adapted(lora=ALL):
    """A model whose adapters already do something."""
    model = build_model()
    prepare_training(model, ModelConfig(lora=lora), base="the/base")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    return model


def logits(model):
    return model.eval()(input_ids=torch.arange(12)[None]).logits


@pytest.mark.parametrize("targets", [("attention",), ("mlp",), ("experts",), ("attention", "experts"), ALL.targets])
def test_merged_weights_compute_the_same(targets):
    model, plain = adapted(LoraConfig(rank=3, alpha=7.5, targets=targets)), build_model()
    merged = dict(merged_weights(model))
    assert merged.keys() == plain.state_dict().keys()
    if targets != ("vision",):
        assert not torch.allclose(logits(plain), logits(model), atol=1e-4), "the adapters change something"
    plain.load_state_dict(merged)
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)


def test_targets_are_what_they_say():
    def found(*targets):
        model = adapted(LoraConfig(targets=targets))
        return {n for n, p in model.named_parameters() if p.requires_grad}

    assert all("self_attn" in name and "vision" not in name for name in found("attention"))
    assert all(".mlp." in name and ".experts." not in name for name in found("mlp"))
    assert all(".experts." in name and "shared" not in name for name in found("experts"))
    assert all("vision_tower" in name for name in found("vision"))
    assert not [name for name in found(*ALL.targets) if ".gate.weight" in name], "the router stays"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_adapters_learn_and_the_engine_gets_them_merged(rng, optimizer):
    model = adapted()
    samples = make_samples(rng, model)
    learner = make_learner(model, optimizer=OptimizerConfig(name=optimizer, learning_rate=1e-2))
    before = copy.deepcopy(model.state_dict())
    learner.update(samples)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    engine = EngineDriver(TransformersEngine(build_model(seed=9), stop_ids=[0], barred_ids=barred_ids(model)))
    engine.load_weights(learner.weights(), version=1)
    prompt = make_prompt(rng, model, text=5, grids=((2, 4),))
    [group] = engine.generate([Request(prompt=prompt, n=4, seed=0)], SamplingConfig(max_new_tokens=12))
    again = [
        type(samples[0])(
            id=new_id(), prompt=prompt, token_ids=c.token_ids, old_logprobs=c.policy_logprobs, advantage=1.0
        )
        for c in group
    ]
    assert make_learner(model, temperature=1.0).update(again)["logprob_gap_max"] < 1e-4


@pytest.mark.parametrize("targets", [("attention",), ALL.targets])
def test_adapters_of_bfloat16_weights_are_float32(rng, targets):
    """Else a step below their resolution would be lost: at a rate of 1e-6, nearly all."""
    model = build_model(dtype=torch.bfloat16)
    torch.manual_seed(0)
    prepare_training(model, ModelConfig(dtype="bfloat16", lora=LoraConfig(rank=3, targets=targets)), base="")
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    before = {n: p.detach().clone() for n, p in trained.items()}
    learner = make_learner(model, optimizer=OptimizerConfig(learning_rate=1e-6))
    samples = make_samples(rng, model)
    assert np.isfinite(list(learner.update(samples).values())).all()
    learner.update(samples)
    still = torch.cat([(trained[n] == before[n]).flatten().float() for n in trained if "lora_A" in n])
    assert float(still.mean()) < 0.1  # an expert that no token reached keeps its adapter
    assert {t.dtype for t in dict(merged_weights(model)).values()} == {
        t.dtype for t in build_model(dtype=torch.bfloat16).state_dict().values()
    }


def test_merged_weights_come_one_by_one():
    """Routed experts are nine weights in ten: all of them merged at once would be a second model on the device."""
    model, alive = adapted(), []
    for name, tensor in merged_weights(model):
        new = tensor.data_ptr() not in {t.data_ptr() for t in model.state_dict().values()}
        assert new == (name in dict(adapted_layers(model)))
        alive = [ref for ref in alive if ref() is not None]
        assert len(alive) <= 1, "the one before is still being given away"
        alive += [weakref.ref(tensor)] if new else []


def test_reference_and_critic_share_what_is_frozen(rng):
    """With adapters they are small beside the model, in memory and in a checkpoint; what learns is their own."""
    loss = LossConfig(algorithm="ppo", kl=KLConfig(coef=0.1), critic=CriticConfig(backbone="own"))
    learner = make_learner(adapted(), loss=loss)
    policy = dict(learner.model.named_parameters())
    for other in (learner.reference.model, learner.critic.backbone):
        for name, parameter in other.named_parameters():
            assert (parameter.data_ptr() == policy[name].data_ptr()) == ("lora_" not in name), name
    size = len(pickled(learner.state_dict()))
    assert size < 1.9 * len(pickled(learner.model.state_dict())), "three whole models would be above 3"
    restored = make_learner(adapted(), loss=loss)
    restored.load_state_dict(load_state(io.BytesIO(pickled(learner.state_dict()))))
    assert {n: p.data_ptr() for n, p in restored.reference.model.named_parameters() if "lora_" not in n} == {
        n: p.data_ptr() for n, p in restored.model.named_parameters() if "lora_" not in n
    }


def pickled(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_a_saved_policy_is_a_plain_model(rng, tmp_path):
    model = adapted()
    make_learner(model).save(tmp_path)
    loaded = load_model(str(tmp_path))
    merged = dict(merged_weights(model))
    assert not [name for name, tensor in loaded.state_dict().items() if not torch.equal(tensor, merged[name])]


def test_peft_reads_the_adapters_alone(tmp_path):
    model = adapted()
    save_adapters(model, tmp_path)
    theirs = PeftModel.from_pretrained(build_model(), str(tmp_path))
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-6, rtol=0)
    assert theirs.peft_config["default"].base_model_name_or_path == "the/base"
    save_adapters(build_model(), tmp_path / "none")
    assert not (tmp_path / "none").exists(), "a model without adapters"


def test_what_is_frozen_stays(rng):
    model = build_model()
    prepare_training(model, ModelConfig(freeze=("vision_tower", "mm_projector", "embed_tokens")), base="")
    before = copy.deepcopy(model.state_dict())
    make_learner(model).update(make_samples(rng, model))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("self_attn" in name for name in moved)
    assert not [n for n in moved if "vision_tower" in n or "mm_projector" in n or "embed_tokens" in n]


@pytest.mark.parametrize(
    "config",
    [ModelConfig(lora=LoraConfig(rank=2, targets=("vision",))), ModelConfig(freeze=("language_model", "lm_head"))],
    ids=["adapters", "frozen"],
)
def test_the_tower_learns_alone_though_some_micro_batches_have_no_image(rng, config):
    def moved(budget):
        model = build_model()
        torch.manual_seed(0)
        prepare_training(model, config, base="")
        before = copy.deepcopy(model.state_dict())
        make_learner(model, micro_batch_tokens=budget).update(samples)
        return {n: t - before[n] for n, t in model.state_dict().items() if not torch.equal(t, before[n])}

    samples = make_samples(rng, build_model())
    cut, whole = moved(20), moved(10_000)
    assert cut.keys() == whole.keys()
    assert all("vision_tower" in name or "mm_projector" in name for name in cut)
    assert max((cut[name] - whole[name]).abs().max() for name in cut) < 1e-4


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (("vision_towr",), "no parameter's name holds 'vision_towr'; names are made of .*vision_tower"),
        (("",), "nothing is left"),
    ],
)
def test_a_freeze_that_cannot_be_meant_is_refused(freeze, message):
    with pytest.raises(UserError, match=message):
        prepare_training(build_model(), ModelConfig(freeze=freeze), base="")
