"""What the RL stage says before it builds its learner, and what it builds it from."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.algorithms import ALGORITHMS, LossConfig
from configs.model import ModelConfig
from configs.rl import RLConfig, SamplingConfig
from rl.learner.learner_config import LearnerConfig
from rl.stages import open_learner, rl_stage


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_chosen_loss_whose_tau_has_no_effect_is_told(monkeypatch, algorithm):
    """At the start of the stage, before the learner is built. A recipe that leaves `loss` alone is not warned of it."""
    said = []
    console = SimpleNamespace(print=lambda text, **_: said.append(text))
    context = SimpleNamespace(
        console=console, folder=SimpleNamespace(stage=Path), config=SimpleNamespace(model=ModelConfig())
    )
    monkeypatch.setattr(rl_stage, "dump_recipe", lambda config: "")
    monkeypatch.setattr(rl_stage, "open_rl_learner", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rl_stage.RLStage(context, RLConfig(steps=1, loss=LossConfig(algorithm=algorithm, entropy_bonus=0.01)), "tiny")
    assert [text[:64] for text in said] == (
        ["rl.loss: kimi_k15 with one update a step has a log-ratio of 0, s"] if algorithm == "kimi_k15" else []
    )


def test_the_learner_gets_the_recipes_numbers(monkeypatch, tmp_path):
    """Its schedule counts every optimizer step, and its log-probs are of the distribution that was sampled."""
    sampling = SamplingConfig(max_new_tokens=99, temperature=0.7)
    stage = RLConfig(steps=5, epochs=2, minibatches=3, micro_batch_tokens=77, sampling=sampling, spike_threshold=7.0)
    monkeypatch.setattr(open_learner, "load_policy", lambda *_, **__: "model")
    monkeypatch.setattr(open_learner, "prepare_training", lambda *_, **__: None)
    monkeypatch.setattr(open_learner, "Learner", lambda model, config, **_: config)
    context = SimpleNamespace(
        config=SimpleNamespace(model=ModelConfig(), seed=4, threads=None),
        folder=SimpleNamespace(stage=lambda name: tmp_path),
        barred_ids=(),
    )
    assert open_learner.open_rl_learner(context, stage, "tiny", SimpleNamespace(keep=None)) == LearnerConfig(
        loss=stage.loss,
        optimizer=stage.optimizer,
        temperature=0.7,
        total_steps=30,
        max_new_tokens=99,
        epochs=2,
        minibatches=3,
        micro_batch_tokens=77,
        spike_threshold=7.0,
        seed=4,
    )
