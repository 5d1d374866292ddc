"""A frozen base in 4 bits: the same as LoRA over what it stands for, packed in between, and kept out of checkpoints."""

import copy
import io
import sys

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_learner, make_prompt, make_samples, new_id

from configs.algorithms import KLConfig, LossConfig
from configs.errors import ConfigError, UserError
from configs.load import load_recipe
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from configs.rl import SamplingConfig
from rl.learner.lora import load_adapters, merged_weights, prepare_training, save_adapters
from rl.learner.nf4 import BLOCK, Nf4Weight, quantize_base, quantized_names, whole, whole_state
from rl.learner.weight_stream import weight_stream
from rl.safe_load import load_state
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.types import Request

EVERYWHERE = ("attention", "mlp", "experts", "vision")
# The levels of NF4 (arXiv:2305.14314, appendix E), rounded; the largest number of a block is 1.
LEVELS = (
    -1,
    -0.6962,
    -0.5251,
    -0.3949,
    -0.2844,
    -0.1848,
    -0.0911,
    0,
    0.0796,
    0.1609,
    0.2461,
    0.3379,
    0.4407,
    0.5626,
    0.723,
    1,
)


@pytest.fixture(autouse=True)
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="pip install 'thinkvl[qlora]'")


def packed(dtype=torch.float32, seed=0):
    model = build_model(seed=seed, dtype=dtype)
    quantize_base(model)
    return model


def unpacked(dtype=torch.float32):
    """An ordinary model with the weights that the one of `packed` stands for."""
    model = build_model(seed=5, dtype=dtype)
    model.load_state_dict(whole_state(packed(dtype)))
    return model


def adapted(model, targets=("attention", "mlp")):
    """With adapters that do something."""
    torch.manual_seed(1)
    prepare_training(model, ModelConfig(lora=LoraConfig(rank=3, targets=targets, quantization="nf4")), base="the/base")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    return model


def test_the_numbers_are_those_of_nf4():
    """Each is the nearest of 16 levels times the largest of its block, whose 8-bit copy is a little off."""
    plain, model = build_model(), packed()
    for name, tensor in model.named_parameters():
        if not isinstance(tensor, Nf4Weight):
            continue
        blocks = plain.get_parameter(name).detach().flatten()
        blocks = torch.nn.functional.pad(blocks, (0, -len(blocks) % BLOCK)).view(-1, BLOCK)
        scale = blocks.abs().amax(1, keepdim=True)
        nearest = torch.tensor(LEVELS)[((blocks / scale)[..., None] - torch.tensor(LEVELS)).abs().argmin(-1)] * scale
        found = tensor.whole().flatten()
        assert (found - nearest.flatten()[: len(found)]).abs().max() < 0.1 * scale.max()


def test_what_is_packed_and_what_stays():
    model = packed()
    found = {name for name, p in model.named_parameters() if isinstance(p, Nf4Weight)}
    rest = {name for name, _ in model.named_parameters()} - found
    assert all("language_model" in name for name in found)
    for part in ("norm", "embed_tokens", "lm_head", "vision_tower", "mm_projector", ".gate.weight"):
        assert any(part in name for name in rest), part
        assert not any(part in name for name in found), part
    for part in ("q_proj", "kv_a_proj", "kv_b_proj", "o_proj", "experts.gate_up_proj", "experts.down_proj", "shared_"):
        assert any(part in name for name in found), part
        assert not any(f"language_model.layers.1.{part}" in name for name in rest), part
    assert len(found) == len(list(quantized_names(build_model())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("targets", [("attention", "mlp"), EVERYWHERE])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pass_and_its_gradients_are_those_of_lora_over_the_unpacked_base(dtype, targets, checkpointing):
    found = []
    for model in (adapted(packed(dtype), targets), adapted(unpacked(dtype), targets)):
        if checkpointing:
            model.train().activation_checkpointing_enable({"use_reentrant": False})
        logits = model(input_ids=torch.arange(12)[None]).logits
        logits.float().square().mean().backward()
        found.append((logits, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (logits, gradients), (expected, wanted) = found
    assert torch.equal(logits, expected)
    assert gradients.keys() == wanted.keys()
    assert not [name for name in wanted if not torch.equal(gradients[name], wanted[name])]
    assert any(gradient.abs().max() > 0 for gradient in gradients.values())


def test_between_the_passes_no_weight_is_whole():
    """Else the activations of a step would hold the whole base in 16 bits."""
    model = adapted(packed(torch.bfloat16))
    shapes = {tuple(t.shape) for p in model.parameters() if isinstance(p, Nf4Weight) for t in (p, p.transpose(-2, -1))}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(input_ids=torch.arange(13)[None])
    kept = [tensor for tensor in kept if tuple(tensor.shape) in shapes]
    assert any(tensor.ndim == 3 for tensor in kept), "the experts' are among them"
    assert all(isinstance(tensor, Nf4Weight) for tensor in kept)


def test_bytes_of_a_weight():
    weight = torch.randn(64, 96, 128)
    layer = torch.nn.Linear(1, 1)
    from bitsandbytes.functional import quantize_4bit

    codes, state = quantize_4bit(weight.flatten(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4")
    layer.weight = torch.nn.Parameter(Nf4Weight(codes, state, weight.shape), requires_grad=False)
    blocks = weight.numel() // 64
    assert layer.weight.packed_bytes == weight.numel() // 2 + blocks + blocks // 256 * 4
    assert (layer.weight.whole() - weight).abs().mean() < 0.1 * weight.abs().mean()


def test_other_operations_read_the_whole_weight():
    weight = next(p for p in packed().parameters() if isinstance(p, Nf4Weight) and p.ndim == 2)
    assert torch.equal(weight + 0, weight.whole())
    assert torch.equal(weight.t() + 0, weight.whole().t())
    assert torch.equal(weight.view(-1) + 0, weight.whole().view(-1))
    assert torch.equal(whole(copy.deepcopy(weight)), weight.whole())
    assert isinstance(copy.deepcopy(weight), torch.nn.Parameter)
    assert repr(weight).startswith("Nf4Weight(shape=(")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_engine_gets_what_the_learner_trains_on(rng, dtype):
    """Merged with what the packed base stands for, not with the weights that it was made from: ratios begin at 1."""
    model = adapted(packed(dtype))
    learner = make_learner(model, optimizer=OptimizerConfig(learning_rate=1e-2))
    learner.update(make_samples(rng, model))
    engine = EngineDriver(
        TransformersEngine(build_model(seed=9, dtype=dtype), stop_ids=[0], barred_ids=barred_ids(model))
    )
    engine.load_weights(learner.weights(), version=1)
    prompt = make_prompt(rng, model, text=5, grids=((2, 4),))
    [group] = engine.generate([Request(prompt=prompt, n=4, seed=0)], SamplingConfig(max_new_tokens=12))
    sample = type(make_samples(rng, model)[0])
    again = [
        sample(id=new_id(), prompt=prompt, token_ids=c.token_ids, old_logprobs=c.policy_logprobs, advantage=1.0)
        for c in group
    ]
    gap = make_learner(model, temperature=1.0).update(again)["logprob_gap_max"]
    assert gap < (1e-4 if dtype == torch.float32 else 0.2)


def test_the_stream_for_engines_has_whole_weights_one_by_one():
    model, plain = adapted(packed(torch.bfloat16)), adapted(unpacked(torch.bfloat16))
    expected = dict(merged_weights(plain))
    assert expected.keys() == build_model().state_dict().keys()
    found = {}
    for bucket in weight_stream(model, "bfloat16", limit=1).buckets:
        raw = torch.cat([torch.from_numpy(np.asarray(part)).view(torch.uint8) for part in bucket.data])
        assert raw.numel()
        found |= dict.fromkeys(t.name for t in bucket.tensors)
    assert found.keys() == expected.keys()
    merged = dict(merged_weights(model))
    assert not [n for n in expected if not torch.equal(merged[n], expected[n])]
    assert not any(isinstance(tensor, Nf4Weight) for tensor in merged.values())


def test_a_checkpoint_holds_adapters_alone_and_a_resumed_run_ends_in_the_same_bits(rng):
    loss = LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1))
    options = {"optimizer": OptimizerConfig(learning_rate=1e-2), "loss": loss}
    learner = make_learner(adapted(packed()), **options)
    steps = [make_samples(rng, learner.model) for _ in range(3)]
    learner.update(steps[0])
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    values = [learner.update(step) for step in steps[1:]]
    buffer.seek(0)
    state = load_state(buffer)
    assert all("lora_" in name or "e_score" in name for name in state["model"])
    restored = make_learner(adapted(packed()), **options)
    restored.load_state_dict(state)
    torch.manual_seed(99)
    assert [restored.update(step) for step in steps[1:]] == values
    own, theirs = whole_state(learner.model), whole_state(restored.model)
    assert not [name for name in own if not torch.equal(own[name], theirs[name])]


def test_adapters_go_from_stage_to_stage(tmp_path):
    model = adapted(packed(), EVERYWHERE)
    save_adapters(model, tmp_path)
    other = packed()
    prepare_training(other, ModelConfig(lora=LoraConfig(rank=3, targets=EVERYWHERE)), base="")
    load_adapters(other, tmp_path)
    own, theirs = dict(merged_weights(model)), dict(merged_weights(other))
    assert not [name for name in own if not torch.equal(own[name], theirs[name])]


def test_packed_again_merged_weights_lose_what_was_learned():
    """Why the stages of a run share the base: its levels are further apart than adapters reach."""
    start, model = packed(), adapted(packed())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.02)  # as far as a few hundred steps get
    merged = dict(merged_weights(model))
    again = build_model()
    again.load_state_dict(merged)
    quantize_base(again)
    name = "model.language_model.layers.1.self_attn.q_proj.weight"
    base, learned, kept = (
        whole(p).detach() for p in (start.get_parameter(name), merged[name], again.get_parameter(name))
    )
    wanted, got = learned - base, kept - base
    assert wanted.norm() < 0.1 * base.norm()
    assert abs((wanted * got).sum() / wanted.square().sum()) < 0.1


def test_a_skipped_update_can_be_written(rng):
    model = packed()
    buffer = io.BytesIO()
    torch.save(whole_state(model), buffer)
    buffer.seek(0)
    assert load_state(buffer).keys() == model.state_dict().keys()


RECIPE = """
name: x
output_dir: runs/x
data: {train: [{use: digit_sums}], held_out: [{use: digit_sums, split: held_out}]}
model: {lora: {rank: 2, quantization: nf4}}
stages: [{kind: sft, steps: 1}, {kind: rl, steps: 1}]
"""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rl.ranks.count=2", r"rl\.ranks\.count = 2: must be 1, or left out.*one process trains"),
        ("sft.ranks.compute_dtype=bfloat16", r"sft\.ranks\.compute_dtype = .bfloat16.: must be left out"),
        (
            "stages=[{kind: long_context, steps: 1, context: 16384, rope_base: 8e5}]",
            r"long_context\.kind = .long_context",
        ),
        ("stages=[{kind: long2short, method: average, short_model: x}]", r"long2short\.method = .average.: must be sh"),
        ("model.lora.quantization=int4", r"quantization = .int4.: must be one of nf4, or null"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_runs(tmp_path, override, said):
    (tmp_path / "x.yaml").write_text(RECIPE)
    assert load_recipe(tmp_path / "x.yaml").model.quantization == "nf4"
    with pytest.raises(ConfigError, match=said):
        load_recipe(tmp_path / "x.yaml", [override])


def test_without_bitsandbytes_it_is_told_how_to_get_it(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"quantization = 'nf4' needs bitsandbytes.*pip install 'thinkvl\[qlora\]'"):
        quantize_base(build_model())
