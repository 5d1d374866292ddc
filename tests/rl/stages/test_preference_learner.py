"""DPO with TRL's loss: its log-probs are ours, its loss is the paper's, and a checkpoint goes on to the bit."""

import copy
import functools

import numpy as np
import pytest
import torch
from rl_helpers import SIZES

from configs.algorithms import LossConfig
from configs.data import SourceConfig
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from kimi_vl import create_tiny_checkpoint, load_model, load_processor
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.lora import merged_state, prepare_training
from rl.metrics_table import PREFERENCE
from rl.stages.preference_learner import PreferenceConfig, PreferenceLearner, PreferencePair
from rl.throughput_table import SPEED
from rl.types import PromptCompletion
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import PromptRenderer

BETA = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    corpus = ["What is the result? 7+4=11"] * 20
    return create_tiny_checkpoint(tmp_path_factory.mktemp("dpo") / "tiny", corpus=corpus, sizes=SIZES)


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


@pytest.fixture(scope="module")
def pairs(processor, tmp_path_factory):
    """Four pairs about images of unlike size, with completions of unlike length."""
    mixture = TaskMixture([SourceConfig(use="digit_sums")], seed=3, base=tmp_path_factory.mktemp("data"))
    renderer = PromptRenderer(processor, max_prompt_tokens=200)
    rng = np.random.default_rng(0)
    return [
        PreferencePair(
            prompt=renderer.render(task), chosen=rng.integers(0, 40, 2 + i), rejected=rng.integers(0, 40, 9 - i)
        )
        for i, task in enumerate(mixture.draw(0, 4))
    ]


@pytest.fixture
def make(folder, processor, tmp_path):
    def learner(*, budget=16_384, steps=4, model_config=None):
        optimizer = OptimizerConfig(name="adamw", learning_rate=1e-3, warmup_steps=1)
        config = PreferenceConfig(optimizer=optimizer, total_steps=steps, micro_batch_tokens=budget, beta=BETA, seed=0)
        torch.manual_seed(0)
        model = load_model(folder)
        prepare_training(model, model_config or ModelConfig(), base=str(folder))
        return PreferenceLearner(model, processor, config, folder=tmp_path)

    return learner


def our_logprobs(folder, state, pairs):
    """Log-probs of all chosen, and of all rejected completions, summed over tokens, by our packed forward pass."""
    model = load_model(folder)
    model.load_state_dict(state)
    config = LearnerConfig(
        loss=LossConfig(algorithm="grpo"),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        temperature=1.0,
        total_steps=1,
        max_new_tokens=16,
    )
    learner = Learner(model, config, barred_ids=())
    return [
        np.array(
            [
                found.sum(dtype=float)
                for found in learner.logprobs(
                    [
                        PromptCompletion(id=f"{i}", prompt=pair.prompt, token_ids=getattr(pair, half))
                        for i, pair in enumerate(pairs)
                    ]
                )
            ]
        )
        for half in ("chosen", "rejected")
    ]


def test_the_log_probs_are_ours_and_the_loss_is_the_papers(folder, make, pairs):
    """TRL's padded batches against our packed rows: 1e-4 of a summed log-prob in float32. Two steps, so that the policy
    has left the reference."""
    learner = make()
    entering = copy.deepcopy(learner.model.state_dict())
    first = learner.update(pairs)
    assert first["loss"] == pytest.approx(np.log(2), rel=1e-6), "the policy is its reference"
    assert sorted(first) == sorted(metric.name for metric in PREFERENCE if metric not in SPEED)  # the stage adds those
    moved = copy.deepcopy(learner.model.state_dict())
    second = learner.update(pairs)
    chosen, rejected = our_logprobs(folder, moved, pairs)
    reference_chosen, reference_rejected = our_logprobs(folder, entering, pairs)
    assert second["logprob_chosen"] == pytest.approx(chosen.mean(), rel=1e-4)
    assert second["logprob_rejected"] == pytest.approx(rejected.mean(), rel=1e-4)
    margins = BETA * ((chosen - reference_chosen) - (rejected - reference_rejected))
    assert second["reward_margin"] == pytest.approx(margins.mean(), rel=1e-2, abs=1e-5)
    assert second["loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-4)
    assert second["loss"] < first["loss"]
    assert second["preference_accuracy"] == np.mean(margins > 0)


def test_one_gradient_whatever_the_micro_batches(make, pairs):
    [whole, single] = [make(budget=budget).update(pairs) for budget in (16_384, 1)]
    for name in ("loss", "grad_norm", "logprob_chosen", "reward_margin"):
        assert single[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6), name


def test_a_step_prints_no_warning(make, pairs, recwarn):
    make().update(pairs)
    assert [str(warning.message) for warning in recwarn if "gradient_checkpointing" in str(warning.message)] == []


def test_the_images_stand_once_for_each_half(make, pairs):
    batch = make().collate(pairs[:2])
    patches = sum(len(pair.prompt.pixel_values) for pair in pairs[:2])
    assert len(batch["pixel_values"]) == 2 * patches
    assert batch["completion_mask"].sum(-1).tolist() == [2, 3, 9, 8]
    first = pairs[0]
    row = batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist()
    assert row == [*first.prompt.input_ids.tolist(), *first.chosen.tolist()]


def test_adapters_are_trained_against_the_entering_model(folder, make, pairs):
    """LoRA: the reference shares the frozen weights. Merged, the log-probs are ours to 1e-4."""
    learner = make(model_config=ModelConfig(lora=LoraConfig(rank=2)))
    first = learner.update(pairs)
    assert first["loss"] == pytest.approx(np.log(2), rel=1e-6), "the policy is its reference"
    merged = merged_state(learner.model)
    second = learner.update(pairs)
    chosen, rejected = our_logprobs(folder, merged, pairs)
    assert second["logprob_chosen"] == pytest.approx(chosen.mean(), rel=1e-4)
    assert second["logprob_rejected"] == pytest.approx(rejected.mean(), rel=1e-4)
    assert second["loss"] < first["loss"]


def test_gradient_checkpointing_changes_nothing(make, pairs):
    [plain, cheap] = [make(model_config=ModelConfig(gradient_checkpointing=on)).update(pairs) for on in (False, True)]
    assert cheap == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["weights", "adapters"])
def test_a_checkpoint_goes_on_to_the_bit(make, pairs, tmp_path, lora):
    make = functools.partial(make, model_config=ModelConfig(lora=lora))
    whole = make()
    logged = [whole.update(pairs[i : i + 2]) for i in (0, 1, 2)]
    cut = make()
    cut.update(pairs[0:2])
    state = copy.deepcopy(cut.write_checkpoint(tmp_path)())
    resumed = make()
    resumed.read_checkpoint(tmp_path, state)
    assert [resumed.update(pairs[i : i + 2]) for i in (1, 2)] == logged[1:]
    final = whole.model.state_dict()
    assert [name for name, tensor in resumed.model.state_dict().items() if not torch.equal(tensor, final[name])] == []


def test_the_model_gets_its_own_forward_pass_back(make, folder, pairs, tmp_path):
    learner = make()
    learner.update(pairs)
    learner.close()
    assert "forward" not in vars(learner.model)
    configs = []
    for name, model in (("ours", load_model(folder)), ("theirs", learner.model)):
        model.save_pretrained(tmp_path / name)
        configs.append({path.name: path.read_text() for path in (tmp_path / name).glob("*.json")})
    assert configs[0] == configs[1], "TRL leaves no trace in the configuration"
