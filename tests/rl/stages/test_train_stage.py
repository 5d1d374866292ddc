"""A stage whose learner loses ranks: opened again from its newest checkpoint, a limited number of times."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from configs.ranks import RanksConfig
from configs.rl import RLConfig
from configs.supervised import SFTConfig
from rl.distributed.learner_group import LostRank
from rl.stages import stage as module

RL = RLConfig(steps=9, ranks=RanksConfig(count=2, restarts=2))


@pytest.fixture
def train(monkeypatch):
    """Trains a stage that loses a rank in each of the first `deaths` attempts, after two more steps are saved."""

    def run(config, deaths, *, where="run"):
        log, said, saved = [], [], SimpleNamespace(steps=0, attempts=0)

        class Stage:
            def __init__(self):
                saved.attempts += 1
                log.append(("open", torch.rand(1).item()))
                self.dies = saved.attempts <= deaths
                if self.dies and where == "open":
                    raise LostRank(1, 2)

            def resume(self):
                log.append(("resume", saved.steps))
                return saved.steps

            def run(self):
                if self.dies:
                    saved.steps += 2
                    raise LostRank(1, 2)
                return "model"

            def figures(self):
                return {"recall": 0.5}

            def close(self):
                log.append(("close", saved.attempts))

        monkeypatch.setattr(module, "open_stage", lambda *_: Stage())
        context = SimpleNamespace(
            seed=lambda config: 5,
            console=SimpleNamespace(print=said.append, can_redraw=False),
            config=SimpleNamespace(generates=lambda _: True),
            workers=SimpleNamespace(start=lambda: None),
        )
        try:
            return module.train_stage(context, config, "model"), log, said
        except LostRank as error:
            return error, log, said

    return run


@pytest.mark.parametrize("config", [RL, SFTConfig(steps=9, ranks=RL.ranks)])
def test_a_stage_goes_back_to_its_newest_checkpoint(train, config):
    trained, log, said = train(config, deaths=2)
    assert trained == module.TrainedStage(model="model", figures={"recall": 0.5}, resumed=True)
    assert [value for name, value in log if name == "resume"] == [0, 2, 4]
    assert [value for name, value in log if name == "close"] == [1, 2, 3], "each before the next is opened"
    assert len({value for name, value in log if name == "open"}) == 1, "as a new process draws"
    assert said == [
        f"learner rank 1 of 2 died; {config.name} goes back to its newest checkpoint with new ranks "
        f"(restart {number} of at most 2, {config.name}.ranks.restarts)"
        for number in (1, 2)
    ]


@pytest.mark.parametrize(("restarts", "where"), [(0, "run"), (2, "run"), (2, "open")])
def test_after_the_last_restart_the_run_ends(train, restarts, where):
    error, log, said = train(replace(RL, ranks=replace(RL.ranks, restarts=restarts)), deaths=9, where=where)
    assert isinstance(error, LostRank)
    assert "learner rank 1 of 2 died" in str(error)
    assert "the same command continues the run" in str(error)
    assert len([name for name, _ in log if name == "open"]) == 1 + restarts
    assert len(said) == restarts


def test_an_undisturbed_stage_runs_once(train):
    trained, log, said = train(RL, deaths=0)
    assert (trained.resumed, said) == (False, [])
    assert [name for name, _ in log] == ["open", "resume", "close"]
