"""Micro-batches in threads: the gradient of one thread, the same bits each time, and PyTorch's setting left alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import rank_jobs
import torch
from rl_helpers import build_model, make_learner, make_samples

from configs.algorithms import LossConfig
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from rl.learner import micro_batch_threads
from rl.learner.balanced_shares import packed_tokens
from rl.learner.lora import prepare_training
from rl.learner.micro_batch_threads import add_gradients, split_for_threads
from rl.learner.parallel import SingleProcess
from rl.learner.supervised_learner import SupervisedLearner, SupervisedLearnerConfig
from rl.types import StepBatch


@pytest.fixture(autouse=True)
def few_tokens_suffice(monkeypatch):
    monkeypatch.setattr(micro_batch_threads, "LEAST_TOKENS", 1)


def made_samples(model):
    return make_samples(np.random.default_rng(0), model)


def gradients(learner, batch):
    learner.optimizer.zero_grad()
    metrics = learner.accumulate(batch)
    critic = () if learner.critic is None else [p for p in learner.critic.leaves() if isinstance(p, torch.nn.Parameter)]
    found = dict(learner.model.named_parameters()) | {f"critic.{i}": p for i, p in enumerate(critic)}
    gradients = {name: p.grad for name, p in found.items() if p.grad is not None}
    for p in critic:
        p.grad = None
    return gradients, metrics


LOSSES = {
    "grpo": LossConfig(algorithm="grpo"),
    "kimi_k15": LossConfig(algorithm="kimi_k15", tau=0.2),
    "balance": LossConfig(algorithm="grpo", balance_coef=0.1),
    "ppo": LossConfig(algorithm="ppo"),
}


def with_columns(samples):
    rng = np.random.default_rng(1)
    columns = ("token_advantages", "old_values", "returns")
    return [
        replace(s, columns={name: rng.normal(size=len(s.token_ids)).astype(np.float32) for name in columns})
        for s in samples
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_threads_give_the_gradient_of_one_and_the_same_bits_each_time(name):
    model = build_model()
    samples = made_samples(model)
    samples = with_columns(samples) if name == "ppo" else samples
    learner = make_learner(model, loss=LOSSES[name])
    batch = StepBatch(samples=tuple(samples), first=True)
    expected, metrics = gradients(learner, batch)
    for count in (2, 3):
        learner.parallel = SingleProcess(threads=count)
        assert len(learner._plan(samples)[0]) >= count
        (found, own), (same, again) = gradients(learner, batch), gradients(learner, batch)
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            assert float((found[key] - gradient).norm()) <= 1e-4 * max(1e-3, float(gradient.norm())), key
            assert torch.equal(found[key], same[key])
            assert found[key].stride() == gradient.stride()
        assert own == again
        assert own == pytest.approx(metrics, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_checkpointing": True},
        {"lora": LoraConfig(rank=2), "gradient_checkpointing": True},
        {"freeze": ("language_model", "lm_head")},
    ],
    ids=["checkpointing", "adapters", "frozen text"],
)
def test_models_that_keep_or_train_less_give_the_same_gradient_in_threads(settings):
    model = build_model()
    prepare_training(model, ModelConfig(path="a folder", **settings), base="a folder")
    learner = make_learner(model, loss=LOSSES["grpo"])
    batch = StepBatch(samples=tuple(made_samples(model)), first=True)
    expected, _ = gradients(learner, batch)
    learner.parallel = SingleProcess(threads=2)
    (found, _), (same, _) = gradients(learner, batch), gradients(learner, batch)
    assert found.keys() == expected.keys() != set()
    for key, gradient in expected.items():
        assert float((found[key] - gradient).norm()) <= 1e-4 * max(1e-3, float(gradient.norm())), key
        assert torch.equal(found[key], same[key])


def test_supervised_steps_in_threads_repeat_to_the_bit_and_lose_nothing():
    ends = []
    for count in (1, 2, 2):
        model = build_model()
        optimizer = OptimizerConfig(name="muon", learning_rate=1e-3)
        config = SupervisedLearnerConfig(optimizer=optimizer, total_steps=3)
        learner = SupervisedLearner(model, config, parallel=SingleProcess(threads=count))
        metrics = [learner.update(made_samples(model)) for _ in range(2)]
        ends.append((copy.deepcopy(model.state_dict()), metrics))
    for name, tensor in ends[1][0].items():
        assert torch.equal(tensor, ends[2][0][name])
    assert ends[1][1] == ends[2][1]
    assert ends[0][1][0] == pytest.approx(ends[1][1][0], rel=1e-5)


def test_torch_keeps_its_number_of_threads():
    torch.set_num_threads(3)
    leaf, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    frozen = torch.ones(2)
    seen = []

    def loss_of(part, statistics):
        seen.append(torch.get_num_threads())
        statistics.append(part)
        return (part * leaf * frozen).sum()

    leaf.grad = torch.full((2,), 10.0)
    found = add_gradients([1, 2, 3, 4], loss_of, new_statistics=list, leaves=[leaf, unused, frozen, None], threads=2)
    assert found == [[1, 3], [2, 4]]
    assert seen == [1] * 4
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    assert leaf.grad.tolist() == [20, 20]
    assert unused.grad is None


def test_an_error_in_a_thread_reaches_the_caller():
    def loss_of(part, statistics):
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 1"):
        add_gradients([1, 2], loss_of, new_statistics=list, leaves=[], threads=2)
    assert torch.get_num_threads() == 1


def test_few_tokens_take_one_thread(monkeypatch):
    monkeypatch.undo()
    samples = made_samples(build_model())
    total = sum(map(packed_tokens, [samples]))
    assert total < micro_batch_threads.LEAST_TOKENS
    assert len(split_for_threads(samples, budget=10_000, threads=8)) == 1


def test_threads_share_the_tokens_evenly():
    samples = made_samples(build_model())
    parts = split_for_threads(samples, budget=10_000, threads=2)
    assert len(parts) == 2
    assert sorted(s.id for part in parts for s in part) == sorted(s.id for s in samples)
    sizes = [sum(len(s.token_ids) for s in part) for part in parts]
    assert max(sizes) < 2 * min(sizes)


def test_gradients_of_bfloat16_weights_are_summed_in_fp32_by_threads():
    gradient, exact = rank_jobs.sum_of_many(None, 64, threads=2)
    error = sum(float(np.square(gradient[n] - exact[n]).sum()) for n in exact)
    assert (error / sum(float(np.square(g).sum()) for g in exact.values())) ** 0.5 < 0.6 * 2**-8
