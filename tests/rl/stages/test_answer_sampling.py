"""Sampling of a long-to-short stage: what is kept, what a killed stage samples again, and what is an error."""

from types import SimpleNamespace

import numpy as np
import pytest
from rl_helpers import make_prompt, make_scored

from configs.errors import UserError
from configs.long2short import LongToShortConfig
from configs.rl import SamplingConfig
from rewards.types import Task, VerdictKind
from rl.run.console import PlainConsole
from rl.run.short_model import short_model_path
from rl.stages import answer_sampling
from rl.stages.answer_sampling import AnswerSampling
from rl.stages.long2short_stage import LongToShortStage
from rl.stages.short_answers import SampledAnswer

QUIET = PlainConsole(quiet=True)
TASKS = [Task(id=f"made/{i}", source="made", question="?", answer="1") for i in range(5)]


class FakePipeline:
    """Answers task i with samples of i + 1 tokens, of which the second is wrong; `calls` are the seeds."""

    def __init__(self, model, *, fail_at=None):
        self._model, self._fail_at, self.calls = model, fail_at, []

    def render_large(self, tasks):
        return {}

    def render(self, tasks, large):
        return [(task, make_prompt(np.random.default_rng(0), self._model)) for task in tasks], {}

    def generate_and_score(self, prompts, sampling, *, n, seed):
        self.calls.append(seed)
        if len(self.calls) == self._fail_at:
            raise KeyboardInterrupt
        groups = []
        for task, prompt in prompts:
            own = SimpleNamespace(id=task.id, task=task, input_ids=prompt.input_ids)
            length = 1 + int(task.id.rpartition("/")[2])
            kinds = (VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.TIMEOUT)
            groups.append([make_scored(own, 1.0, kind=kind, length=length) for kind in kinds])
        return groups


@pytest.fixture
def sample(tmp_path, model, monkeypatch):
    monkeypatch.setattr(answer_sampling, "BATCH", 2)

    def make(name, *, fail_at=None):
        pipeline = FakePipeline(model, fail_at=fail_at)
        sampling = AnswerSampling(TASKS, pipeline, SamplingConfig(), samples=3, seed=4, folder=tmp_path / name)
        return sampling, pipeline

    return make


def test_samples_with_a_verdict_are_kept_and_long_ones_left_out(sample):
    sampling, _ = sample("whole")
    sampling.run(QUIET, "made")
    groups = sampling.answers(max_tokens=8)
    assert list(groups) == ["made/0", "made/1", "made/2", "made/3"], "the prompt has 4 tokens, and 4 + 5 is too long"
    assert [(len(own), own.correct, own.finished) for own in groups["made/2"]] == [(3, True, True), (3, False, True)]
    with pytest.raises(UserError, match="of 15 samples none has a verdict and fits into max_tokens = 4"):
        sampling.answers(max_tokens=4)


def test_a_killed_stage_samples_only_what_is_missing(sample, tmp_path):
    whole, pipeline = sample("whole")
    whole.run(QUIET, "made")
    cut, _ = sample("cut", fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        cut.run(QUIET, "made")
    again, rest = sample("cut")
    assert (again.done, again.complete) == (2, False)
    again.run(QUIET, "made")
    assert rest.calls == pipeline.calls[2:], "the seed of a batch depends on its number alone"
    assert again.complete
    for path in (tmp_path / "whole").glob("*.parquet"):
        assert (tmp_path / "cut" / path.name).exists()


@pytest.fixture
def stage(tmp_path):
    def make(groups, **keys):
        made = LongToShortStage.__new__(LongToShortStage)
        made._config = LongToShortConfig(**{"method": "dpo", **keys})
        made._context = SimpleNamespace(console=QUIET, seed=lambda config: 0)
        made._tasks = TASKS
        made._sampling = SimpleNamespace(answers=lambda max_tokens: groups)
        return made

    return make


def answer(length, correct):
    return SampledAnswer(task="made/0", prompt_tokens=2, token_ids=np.arange(length), correct=correct, finished=True)


def test_nothing_to_train_on_is_an_error_that_says_what_to_do(stage):
    with pytest.raises(UserError, match="none of 8 samples of 1 question is correct and complete"):
        stage({"made/0": [answer(3, False)]}, method="shortest")._training()
    with pytest.raises(UserError, match=r"1\.5 times as long, so there is no pair; raise samples or prompts"):
        stage({"made/0": [answer(3, True), answer(4, True), answer(2, False)]})._training()


def test_the_short_model_is_an_earlier_stage_or_a_folder(tmp_path):
    config = SimpleNamespace(stages=[SimpleNamespace(name=name) for name in ("instruct", "merged", "later")])
    folder = SimpleNamespace(stage=lambda name: tmp_path / "run" / name)

    def path(short_model):
        own = LongToShortConfig(name="merged", method="average", short_model=short_model)
        return short_model_path(config, own, folder, base=tmp_path)

    assert path("instruct") == tmp_path / "run" / "instruct" / "model"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert path("other") == tmp_path / "other"
    for unknown in ("later", "merged", "elsewhere"):
        with pytest.raises(UserError, match=rf"merged\.short_model = '{unknown}': neither an earlier stage .*instruct"):
            path(unknown)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "average"}, "short_model"),
        ({"method": "dpo", "short_model": "instruct"}, "short_model"),
        ({"method": "average", "short_model": "a", "weight": 1.0}, "weight"),
        ({"method": "dpo", "samples": 1}, "samples"),
        ({"method": "dpo", "beta": 0.0}, "beta"),
        ({"method": "dpo", "balance_coef": 0.1}, "balance_coef"),
        ({"method": "shortest", "prompts": 0}, "prompts"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        LongToShortConfig(**keys)
