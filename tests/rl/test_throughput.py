"""Tokens and operations a second, against numbers worked out by hand and against PyTorch's own count."""

import numpy as np
import pytest
from rl_helpers import build_model, make_learner, make_prompt, make_samples, make_scored
from torch.utils.flop_counter import FlopCounterMode

from configs.algorithms import CriticConfig, KLConfig, LossConfig
from configs.model import LoraConfig, ModelConfig
from configs.rl import RLConfig
from rl.plan import roofline
from rl.plan.roofline import FORWARD, FROZEN, NOT_RUN, TRAINED
from rl.plan.sizes import measure_sizes
from rl.step_metrics import Stopwatch
from rl.throughput import Counts, ModelWork, Throughput, count, rl_passes, supervised_passes, update_passes
from rollouts.resource_use import CacheMeter, CacheUse, EngineUse, PoolUse, ProcessUse, process_use

H100 = ProcessUse(device="NVIDIA H100 80GB HBM3", memory=3 * 10**9, cuda_memory=7 * 10**9)


@pytest.fixture
def samples(rng, model):
    return make_samples(rng, model)


def sizes_of(model, **options):
    return measure_sizes(model.config, ModelConfig(path="tiny", **options))


def test_samples_are_counted_with_each_prompt_once(samples):
    """Prompts of 4 + 1, 7, 3 + 4 and 11 + 4 tokens with images of 4, 0, 8 + 8 and 16 patches; three samples each."""
    lengths = [5, 7, 7, 15]
    new = [len(s.token_ids) - 1 for s in samples]
    pairs = sum(n * (n + 1) / 2 for n in lengths)
    pairs += sum(own * before + own * (own + 1) / 2 for own, before in zip(new, np.repeat(lengths, 3), strict=True))
    assert count(samples) == Counts(
        tokens=sum(lengths) + sum(new), predicted=sum(new) + 12, pairs=pairs, patches=(4, 8, 8, 16)
    )


def test_an_update_costs_what_pytorch_counts(samples):
    """Every matrix product of forward and backward pass, exactly; the head's logits are computed again for theirs.

    PyTorch counts no fused attention, and the masked one of a CPU also computes the pairs that it masks.
    """
    model = build_model()
    model.set_experts_implementation("eager")  # grouped products are not counted
    learner, counts = make_learner(model), count(samples)
    with FlopCounterMode(display=False) as counter:
        learner.update(samples)
    counted = sum(n for name, n in counter.get_flop_counts()["Global"].items() if "bmm" not in str(name))
    text = roofline.text_flops(model.config, TRAINED, tokens=counts.tokens, predicted=counts.predicted, pairs=0)
    images = roofline.image_flops(model.config, TRAINED, counts.patches)
    mixing = 3 * 4 * 32 * sum(n**2 for n in counts.patches)
    again = 2 * roofline.products(model.config).head * counts.predicted
    assert counted == text + images - mixing + again
    whole = supervised_passes(sizes_of(model)).flops(model.config, counts)
    assert whole == text + images + 3 * roofline.attention_flops(model.config, counts.pairs)


def test_what_is_not_trained_costs_less(model):
    assert update_passes(sizes_of(model)) == (TRAINED, TRAINED)
    assert update_passes(sizes_of(model, freeze=("vision_tower", "projector"))) == (TRAINED, FORWARD)
    assert update_passes(sizes_of(model, lora=LoraConfig(rank=2))) == (FROZEN, FORWARD)
    assert supervised_passes(sizes_of(model), vision_alone=True).text == [NOT_RUN]
    assert supervised_passes(sizes_of(model), reference=True).text == [FORWARD, TRAINED]


def test_a_step_of_rl_counts_every_pass(model):
    """Two epochs read log-probs first; a frozen reference and a critic with a backbone of its own are read, too."""
    sizes = sizes_of(model)
    plain = rl_passes(sizes, RLConfig(steps=1, loss=LossConfig(algorithm="grpo")))
    assert (plain.text, plain.vision, plain.headless) == ([TRAINED], [TRAINED], [])
    rich = LossConfig(algorithm="ppo", kl=KLConfig(coef=0.1), critic=CriticConfig(backbone="own"))
    many = rl_passes(sizes, RLConfig(steps=1, epochs=2, loss=rich))
    assert many.text == [FORWARD, FORWARD, TRAINED, TRAINED]
    assert many.headless == [FORWARD, TRAINED, TRAINED]
    assert many.vision == [*many.text, *many.headless]


def test_rates_and_the_share_of_the_peak(model, samples):
    work = ModelWork(sizes=sizes_of(model), passes=supervised_passes(sizes_of(model)))
    counts, flops = count(samples), work.passes.flops(model.config, count(samples))
    two = Throughput(work=work).learner(samples, 0.5, [H100, H100])
    assert two["tokens_per_second/learner"] == 2 * counts.tokens
    assert two["tflops/learner"] == pytest.approx(2 * flops / 1e12)
    assert two["mfu/learner"] == pytest.approx(2 * flops / (2 * 989e12))
    assert (two["memory/learner"], two["cuda_memory/learner"]) == (3.0, 7.0)


def test_what_is_unknown_is_left_out(model, samples):
    on_cpu = Throughput(work=ModelWork(sizes=sizes_of(model), passes=supervised_passes(sizes_of(model))))
    found = on_cpu.learner(samples, 1.0, [process_use("cpu")])
    assert found.keys() == {"tokens_per_second/learner", "tflops/learner", "memory/learner"}
    assert 0.05 < found["memory/learner"] < 100
    assert on_cpu.learner([], 1.0, []) == {}
    mixed = [H100, ProcessUse(device="NVIDIA H200", memory=1)]
    assert "mfu/learner" not in on_cpu.learner(samples, 1.0, mixed)


def test_rollouts_count_their_prompt_once_and_each_token(rng, model):
    prompt = make_prompt(rng, model, text=4, grids=((2, 2),))
    group = [make_scored(prompt, 1.0, length=n) for n in (3, 5)]
    use = PoolUse(seconds=2.0, workers=2, gpus=2.0, processes=[H100, H100])
    sizes = sizes_of(model)
    found = Throughput(work=ModelWork(sizes=sizes, passes=supervised_passes(sizes))).rollouts([group, []], 2.0, use)
    flops = roofline.generation_flops(model.config, prompt=5, new=[3, 5], patches=[4])
    assert found["tokens_per_second/rollouts"] == 4.0
    assert found["mfu/rollouts"] == pytest.approx(flops / 2 / (2 * 989e12))


def test_idle_shares_and_hits_of_the_cache():
    engines = [
        EngineUse(busy=1.5, cache=CacheUse(full=0.25, prompt_tokens=80, computed_tokens=10)),
        EngineUse(busy=0.5, cache=CacheUse(full=0.5, prompt_tokens=20, computed_tokens=15)),
    ]
    found = PoolUse(seconds=2.0, workers=2, gpus=0.0, engines=engines).metrics()
    assert found == {"idle/workers": 0.5, "cache/full": 0.5, "cache/prompt_hits": 0.75}
    assert PoolUse(seconds=2.0, workers=2, gpus=0.0).metrics() == {"idle/workers": 1.0}
    meter = CacheMeter()
    for share in (0.2, 0.1):
        meter.fill(share)
    meter.count(needed=4, computed=1)
    assert meter.take() == CacheUse(full=0.2, prompt_tokens=4, computed_tokens=1)
    assert meter.take() == CacheUse()


def test_phases_add_up_to_the_step():
    watch = Stopwatch(began=0.0)
    watch.seconds = {"seconds/rollout": 5.0, "seconds/generate": 4.0, "seconds/update": 3.0, "seconds/learner": 2.0}
    found = watch.metrics(now=10.0)
    assert (found["seconds/step"], found["seconds/driver"]) == (10.0, 4.0), "nobody was waited for"
    assert (found["idle/learner"], found["idle/driver"]) == (0.8, 0.6)
