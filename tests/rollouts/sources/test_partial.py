"""Partial rollouts with a real engine: pieces over steps, bounds, what is done when, and going on from a checkpoint."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_prompt
from source_helpers import LocalDispatcher

from configs.errors import ConfigError
from configs.rl import PartialConfig, RLConfig, SamplingConfig
from rewards.scorer import Scorer
from rl.safe_load import load_state
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.sources.partial import min_trainable_version
from rollouts.sources.rollout_pipeline import RolloutPipeline, make_requests, request_seed
from rollouts.sources.window import WindowedSource

SAMPLING = SamplingConfig(max_new_tokens=24)
STEPS, SEED = 12, 5


@pytest.fixture
def engine(model):
    return EngineDriver(TransformersEngine(model, stop_ids=range(4), barred_ids=barred_ids(model)))


@pytest.fixture
def prompts(rng, model):
    shapes = [(4, ((2, 2),)), (7, ()), (5, ()), (3, ((2, 4),)), (6, ()), (4, ())]
    made = [make_prompt(rng, model, text=text, grids=grids) for text, grids in shapes]
    return [replace(p, task=replace(p.task, id=str(i))) for i, p in enumerate(made)]


class Renderer:
    """Renders a task as it was before."""

    def __init__(self, prompts):
        self.by_id = {p.task.id: p for p in prompts}

    def render(self, task):
        return self.by_id[task.id]

    def render_all(self, tasks, rendered=()):
        return [self.render(task) for task in tasks], {}


class Partial:
    """A source with a budget and a real engine: two new prompts of three completions in each of the first steps."""

    def __init__(self, engine, prompts, *, steps=STEPS, **options):
        config = RLConfig(
            steps=steps,
            prompts_per_step=2,
            samples_per_prompt=3,
            sampling=SAMPLING,
            partial=PartialConfig(**options),
        )
        pipeline = RolloutPipeline(
            renderer=Renderer(prompts),
            generate=lambda *args: self.generate(*args),
            decode=str,
            scorer=Scorer(config.rewards),
        )
        self.engine, self.prompts, self.generate = engine, prompts, engine.generate
        self.source = WindowedSource(config, pipeline, self, seed=SEED, dispatcher=LocalDispatcher)

    @property
    def version(self):
        return self.engine.version

    @property
    def prefixes(self):
        """What is generated so far of each group that continues, by task."""
        return {g.prompt.task.id: g.request.prefixes for g in self.source._paused.values()}

    def step(self, step):
        """{task: completions} of the groups that finished."""
        assert list(self.source.begin_step(step)) == [step]
        self.source.submit([p.task for p in self.prompts[2 * step : 2 * step + 2]], step=step)
        return completions(self.source.next_groups(step))

    def refill(self, step, prompts):
        return completions(self.source.wait_for(self.source.submit([p.task for p in prompts], step=step)))

    def metrics(self, step):
        return self.source.report(step).metrics


def completions(groups):
    return {g.prompt.task.id: [r.completion for r in g.rollouts] for g in groups}


def run(partial, *, start=0, stop=STEPS):
    """{task: (step, completions)} of what finished."""
    done = {}
    for step in range(start, stop):
        done |= {task: (step, found) for task, found in partial.step(step).items()}
        partial.engine.load_weights(partial.engine.engine.model.state_dict(), version=step + 1)
    return done


def in_one_piece(engine, prompts):
    engine.load_weights(engine.engine.model.state_dict(), version=0)
    requests = [
        request
        for step in range(3)
        for request in make_requests(prompts[2 * step : 2 * step + 2], n=3, seed=request_seed(SEED, step))
    ]
    return {r.prompt.task.id: a for r, a in zip(requests, engine.generate(requests, SAMPLING), strict=True)}


def test_pieces_are_the_whole_and_a_group_is_done_when_all_its_answers_are(engine, prompts):
    """With weights that stay the same, an answer over several steps has the tokens of one in one piece."""
    whole = in_one_piece(engine, prompts)
    engine.load_weights(engine.engine.model.state_dict(), version=0)
    partial = Partial(engine, prompts, budget=12)
    done = run(partial)
    assert done.keys() == whole.keys()
    assert partial.source.unfinished == 0
    late = 0
    for place, (task, (step, answers)) in enumerate(sorted(done.items())):
        begun = place // 2
        longest = max(len(c.token_ids) for c in whole[task])
        assert step - begun == (longest - 1) // 12, "the step in which the longest answer ends"
        late += step > begun
        for answer, expected in zip(answers, whole[task], strict=True):
            assert answer.token_ids.tolist() == expected.token_ids.tolist()
            assert answer.finish_reason == expected.finish_reason
            assert np.abs(answer.policy_logprobs - expected.policy_logprobs).max() < 2e-5
            spans = [(s.start, s.stop, s.version) for s in answer.segments]
            length = len(answer.token_ids)
            assert spans == [(a, min(a + 12, length), begun + i) for i, a in enumerate(range(0, length, 12))]
    assert 0 < late < len(done), "some at once, some later: else the test shows nothing"


def test_new_tokens_are_of_the_new_policy(engine, prompts):
    """Its log-probs are those that the new weights give to the whole sequence, and old tokens keep theirs."""
    partial = Partial(engine, prompts[:2], budget=5)
    partial.step(0)
    before = partial.prefixes
    other = build_model(seed=7)
    engine.load_weights(other.state_dict(), version=1)
    now = {**partial.step(1), **partial.prefixes}
    assert now.keys() == before.keys()
    checked = 0
    for task, found in now.items():
        prompt = prompts[int(task)]
        for old, new in zip(before[task], found, strict=True):
            known = len(old.token_ids)
            if old.finish_reason != "abort":
                assert new is old
                continue
            assert new.policy_logprobs[:known].tolist() == old.policy_logprobs.tolist()
            assert [s.version for s in new.segments] == [0, 1]
            ids = torch.from_numpy(np.concatenate([prompt.input_ids, new.token_ids]))[None]
            images = {}
            if len(prompt.pixel_values):
                images["pixel_values"] = torch.from_numpy(prompt.pixel_values)
                images["image_grid_hws"] = torch.from_numpy(prompt.image_grid_hws)
            with torch.no_grad():
                logits = other(input_ids=ids, use_cache=False, **images).logits[0]
            logits[:, barred_ids(other)] = -torch.inf
            rows = logits.log_softmax(-1)[len(prompt.input_ids) - 1 : -1]
            expected = rows.gather(-1, torch.from_numpy(new.token_ids)[:, None])[:, 0].numpy()
            assert np.abs(new.policy_logprobs[known:] - expected[known:]).max() < 1e-4
            assert np.abs(new.policy_logprobs[:known] - expected[:known]).max() > 1e-2, "the policies differ"
            checked += 1
    assert checked


def test_an_answer_ends_after_so_many_segments(engine, prompts):
    whole = in_one_piece(engine, prompts)
    partial = Partial(engine, prompts, budget=5, max_segments=2)
    forced = 0
    for step in range(4):
        done = partial.step(step)
        for task, group in done.items():
            for answer, expected in zip(group, whole[task], strict=True):
                cut = len(expected.token_ids) > 10
                assert len(answer.token_ids) == (10 if cut else len(expected.token_ids))
                assert answer.finish_reason == ("length" if cut else expected.finish_reason)
        own = sum(len(c.token_ids) > 10 for task in done for c in whole[task])
        assert partial.metrics(step)["partial/forced"] == own
        forced += own
    assert forced > 0
    assert partial.source.unfinished == 0


def test_the_last_step_leaves_nothing_behind(engine, prompts):
    whole = in_one_piece(engine, prompts)
    done = run(Partial(engine, prompts, steps=3, budget=2), stop=3)
    assert {t: [c.token_ids.tolist() for c in a] for t, (_, a) in done.items()} == {
        t: [c.token_ids.tolist() for c in a] for t, a in whole.items()
    }


def test_a_refill_generates_only_what_is_new(engine, prompts):
    """It must not give an unfinished completion a second budget in the same step."""
    partial = Partial(engine, prompts, budget=3)
    partial.step(0)
    before = partial.prefixes
    partial.refill(0, prompts[2:4])
    after = partial.prefixes
    assert all(after[task] is prefix for task, prefix in before.items())
    assert partial.source.unfinished == len(after) > len(before) > 0
    assert {len(c.token_ids) for prefix in after.values() for c in prefix} <= {1, 2, 3}


@pytest.mark.parametrize("stop", range(1, 6))
def test_going_on_from_a_checkpoint_is_the_same_to_the_bit(engine, prompts, stop):
    expected = run(Partial(engine, prompts, budget=4))
    engine.load_weights(engine.engine.model.state_dict(), version=0)
    first = Partial(engine, prompts, budget=4)
    done = run(first, stop=stop)
    file = io.BytesIO()
    torch.save(first.source.state_dict(), file)
    file.seek(0)
    second = Partial(engine, prompts, budget=4)
    second.source.load_state_dict(load_state(file))
    assert second.source.unfinished == first.source.unfinished
    done |= run(second, start=stop)
    assert bits(done) == bits(expected)


def test_requests_continue_in_their_own_order_whichever_worker_finished_first(engine, prompts, monkeypatch):
    """What shares a batch moves the last bits of log-probs, so the order must not depend on how fast workers are."""
    submitted = []

    def submit(self, requests):
        submitted.append(list(requests))
        self.waiting.update(requests)

    def wait_until(self, ready):
        requests, self.waiting = self.waiting, {}
        found = self.pool.generate(list(requests.values()), self.sampling) if requests else []
        for key, completions in reversed(list(zip(requests, found, strict=True))):
            self.on_completions(key, completions)
        assert ready()

    monkeypatch.setattr(LocalDispatcher, "submit", submit)
    monkeypatch.setattr(LocalDispatcher, "wait_until", wait_until)
    run(Partial(engine, prompts, budget=4))
    assert any(len(keys) > 2 for keys in submitted), "nothing is ever continued beside something else"
    assert all(keys == sorted(keys) for keys in submitted)


def bits(done):
    return {
        task: (step, [(c.token_ids.tobytes(), c.policy_logprobs.tobytes(), c.segments, c.finish_reason) for c in a])
        for task, (step, a) in done.items()
    }


def test_metrics_by_hand(engine, prompts):
    whole = in_one_piece(engine, prompts)
    lengths = {task: [len(c.token_ids) for c in answers] for task, answers in whole.items()}
    partial = Partial(engine, prompts, budget=8)
    for step in range(4):
        done = {task: lengths[task] for task in partial.step(step)}
        metrics, unfinished = partial.metrics(step), partial.source.unfinished
        assert metrics["partial/pending"] == unfinished
        if not done:
            assert metrics == {"partial/pending": float(unfinished), "partial/forced": 0.0}
            continue
        tokens = [n for own in done.values() for n in own]
        assert metrics["partial/segments"] == pytest.approx(np.mean([-(-n // 8) for n in tokens]))
        # What the group's last step wrote is what its longest answers have beyond the last border.
        old = [min(n, (max(own) - 1) // 8 * 8) for own in done.values() for n in own]
        assert metrics["partial/old_share"] == pytest.approx(sum(old) / sum(tokens))


def test_a_quarantined_task_leaves_what_is_pending(engine, prompts):
    partial = Partial(engine, prompts[:2], budget=3)
    partial.step(0)
    [gone, *_] = partial.prefixes
    partial.generate = lambda requests, sampling: [
        [] if r.prompt.task.id == gone else a
        for r, a in zip(requests, engine.generate(requests, sampling), strict=True)
    ]
    assert partial.step(1)[gone] == []
    assert gone not in partial.prefixes


def test_the_oldest_version_that_is_trained_on():
    assert min_trainable_version(None, 7) == 0
    assert min_trainable_version(PartialConfig(budget=1), 7) == 0
    assert min_trainable_version(PartialConfig(budget=1, mask_age=1), 7) == 7, "the current policy's tokens alone"
    assert min_trainable_version(PartialConfig(budget=1, mask_age=3), 7) == 5


def test_a_budget_that_bounds_nothing_is_told():
    sampling = SamplingConfig(max_new_tokens=8)
    RLConfig(steps=1, sampling=sampling, partial=PartialConfig(budget=7))
    with pytest.raises((ConfigError, ValueError), match=r"partial\.budget.*below sampling\.max_new_tokens = 8"):
        RLConfig(steps=1, sampling=sampling, partial=PartialConfig(budget=8))
