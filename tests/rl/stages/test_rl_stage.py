"""What the RL stage says before it builds its learner."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.algorithms import ALGORITHMS, LossConfig
from configs.model import ModelConfig
from configs.rl import RLConfig
from rl.stages import rl_stage


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_default_recipe_says_that_tau_has_no_effect(monkeypatch, algorithm):
    """At the start of the stage, before the learner is built."""
    said = []
    console = SimpleNamespace(print=lambda text, **_: said.append(text))
    context = SimpleNamespace(
        console=console, folder=SimpleNamespace(stage=Path), config=SimpleNamespace(model=ModelConfig())
    )
    monkeypatch.setattr(rl_stage, "dump_recipe", lambda config: "")
    monkeypatch.setattr(rl_stage, "_learner", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rl_stage.RLStage(context, RLConfig(steps=1, loss=LossConfig(algorithm=algorithm)), "tiny")
    assert [text[:64] for text in said] == (
        ["rl.loss: kimi_k15 with one update a step has a log-ratio of 0, s"] if algorithm == "kimi_k15" else []
    )
