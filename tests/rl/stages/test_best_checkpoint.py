"""Which weights the RL stage keeps as the best, and how validation draws tokens."""

import math
from types import SimpleNamespace

import pytest

from configs.algorithms import LossConfig
from configs.rl import RLConfig, SamplingConfig
from configs.schema import EvaluationConfig
from rl.alarms.watch import AlarmWatch
from rl.stages import rl_schedule as module
from rl.stages.rl_schedule import RLSchedule


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Gives the step whose weights are in `best` after validations with these accuracies, greedy and sampled."""
    samplings = []

    def run(*accuracies, best=None):
        step = SimpleNamespace(now=0)

        def save(folder):
            folder.mkdir(parents=True)
            (folder / "step").write_text(str(step.now))

        def evaluate(pipeline, prompts, *, sampling, **options):
            samplings.append(sampling)
            greedy, sampled = accuracies[step.now]
            return SimpleNamespace(greedy_accuracy=greedy, sampled_accuracy=sampled, metrics=dict, tasks=1), []

        monkeypatch.setattr(module, "evaluate", evaluate)
        sampling = SamplingConfig(max_new_tokens=70, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1)
        stage = RLSchedule(
            SimpleNamespace(
                config=RLConfig(steps=1, loss=LossConfig(algorithm="grpo"), sampling=sampling),
                learner=SimpleNamespace(save=save, save_adapters=lambda folder: None),
                seed=0,
                alarms=AlarmWatch(()),
            ),
            folder=tmp_path,
            base=str(tmp_path),
            on_written=lambda: None,
            pipeline=None,
            validation=[],
            evaluation=EvaluationConfig(max_new_tokens=33),
            metrics=SimpleNamespace(write=lambda *_: None),
            say=print,
        )
        if best is not None:
            stage._best = best
        for step.now in range(len(accuracies)):
            stage._validate(step.now)
        path = tmp_path / "best" / "step"
        return int(path.read_text()) if path.exists() else None

    run.samplings = samplings
    return run


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([(0.5, 0.5), (0.6, 0.6), (0.4, 0.4)], 1),
        ([(0.5, 0.5), (0.5, 0.5)], 1),
        ([(0.5, 0.5), (0.7, 0.2)], 0),
        ([(0.5, 0.2), (0.4, 0.5)], 1),
        ([(math.nan, math.nan), (0.0, 0.0)], 1),
        ([(0.0, 0.0), (math.nan, 0.9)], 0),
    ],
    ids=["highest", "later of two equals", "greedy alone", "sampled counts", "no verdict first", "no verdict later"],
)
def test_the_best_is_the_highest_mean_of_greedy_and_sampled(kept, accuracies, expected):
    assert kept(*accuracies) == expected


def test_what_an_earlier_process_reached_still_counts(kept):
    assert kept((0.5, 0.5), best=0.6) is None


def test_validation_has_its_own_limit_of_tokens_and_the_sampling_of_training(kept):
    kept((0.5, 0.5))
    [sampling] = kept.samplings
    assert sampling == SamplingConfig(max_new_tokens=33, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1)
