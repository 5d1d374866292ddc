"""Partial rollouts with a real engine: pieces over steps, bounds, what is done when, and going on from a checkpoint."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_prompt

from configs.errors import ConfigError
from configs.rl import PartialConfig, RLConfig, SamplingConfig
from rollouts.engines.transformers import TransformersEngine
from rollouts.sources.partial import PartialRollouts, oldest_trainable
from rollouts.sources.requests import make_requests

SAMPLING = SamplingConfig(max_new_tokens=24)
STEPS = 12


@pytest.fixture
def engine(model):
    return TransformersEngine(model, stop_ids=range(4), barred_ids=barred_ids(model))


@pytest.fixture
def prompts(rng, model):
    shapes = [(4, ((2, 2),)), (7, ()), (5, ()), (3, ((2, 4),)), (6, ()), (4, ())]
    made = [make_prompt(rng, model, text=text, grids=grids) for text, grids in shapes]
    return [replace(p, task=replace(p.task, id=str(i))) for i, p in enumerate(made)]


class Renderer:
    """Renders a task as it was before."""

    def __init__(self, prompts):
        self.by_id = {p.task.id: p for p in prompts}

    def render_all(self, tasks):
        return [self.by_id[t.id] for t in tasks], {}


def partial(engine, *, steps=STEPS, **config):
    return PartialRollouts(PartialConfig(**config), engine.generate, steps=steps)


def run(rollouts, engine, prompts, *, start=0, stop=STEPS, weights=None):
    """Two new prompts of three answers in each of the first steps; {task: (step, answers)} of what is done."""
    done = {}
    for step in range(start, stop):
        requests = make_requests(prompts[2 * step : 2 * step + 2], n=3, seed=step)
        finished, answers = rollouts.ask(requests, SAMPLING, step=step)
        done |= {r.prompt.task.id: (step, a) for r, a in zip(finished, answers, strict=True)}
        engine.load_weights(weights or engine.model.state_dict(), version=step + 1)
    return done


def in_one_piece(engine, prompts):
    engine.load_weights(engine.model.state_dict(), version=0)
    requests = [r for step in range(3) for r in make_requests(prompts[2 * step : 2 * step + 2], n=3, seed=step)]
    return {r.prompt.task.id: a for r, a in zip(requests, engine.generate(requests, SAMPLING), strict=True)}


def test_pieces_are_the_whole_and_a_group_is_done_when_all_its_answers_are(engine, prompts):
    """With weights that stay the same, an answer over several steps has the tokens of one in one piece."""
    whole = in_one_piece(engine, prompts)
    engine.load_weights(engine.model.state_dict(), version=0)
    rollouts = partial(engine, budget=12)
    done = run(rollouts, engine, prompts)
    assert done.keys() == whole.keys()
    assert len(rollouts) == 0
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
    rollouts = partial(engine, budget=5)
    requests = make_requests(prompts[:2], n=3, seed=0)
    rollouts.ask(requests, SAMPLING, step=0)
    before = {r.prompt.task.id: r.written for r in rollouts._pending}
    other = build_model(seed=7)
    engine.load_weights(other.state_dict(), version=1)
    finished, answers = rollouts.ask([], SAMPLING, step=1)
    now = [*zip(finished, answers, strict=True), *((r, r.written) for r in rollouts._pending)]
    checked = 0
    for request, written in now:
        for old, new in zip(before[request.prompt.task.id], written, strict=True):
            known = len(old.token_ids)
            if old.finish_reason != "abort":
                assert new is old
                continue
            assert new.policy_logprobs[:known].tolist() == old.policy_logprobs.tolist()
            assert [s.version for s in new.segments] == [0, 1]
            ids = torch.from_numpy(np.concatenate([request.prompt.input_ids, new.token_ids]))[None]
            images = {}
            if len(request.prompt.pixel_values):
                images["pixel_values"] = torch.from_numpy(request.prompt.pixel_values)
                images["image_grid_hws"] = torch.from_numpy(request.prompt.image_grid_hws)
            with torch.no_grad():
                logits = other(input_ids=ids, use_cache=False, **images).logits[0]
            logits[:, barred_ids(other)] = -torch.inf
            rows = logits.log_softmax(-1)[len(request.prompt.input_ids) - 1 : -1]
            expected = rows.gather(-1, torch.from_numpy(new.token_ids)[:, None])[:, 0].numpy()
            assert np.abs(new.policy_logprobs[known:] - expected[known:]).max() < 1e-4
            assert np.abs(new.policy_logprobs[:known] - expected[:known]).max() > 1e-2, "the policies differ"
            checked += 1
    assert checked


def test_an_answer_ends_after_so_many_segments(engine, prompts):
    whole = in_one_piece(engine, prompts)
    rollouts = partial(engine, budget=5, max_segments=2)
    forced = 0
    for step in range(4):
        requests = make_requests(prompts[2 * step : 2 * step + 2], n=3, seed=step)
        finished, answers = rollouts.ask(requests, SAMPLING, step=step)
        for request, group in zip(finished, answers, strict=True):
            for answer, expected in zip(group, whole[request.prompt.task.id], strict=True):
                cut = len(expected.token_ids) > 10
                assert len(answer.token_ids) == (10 if cut else len(expected.token_ids))
                assert answer.finish_reason == ("length" if cut else expected.finish_reason)
        own = sum(len(c.token_ids) > 10 for r in finished for c in whole[r.prompt.task.id])
        assert rollouts.metrics()["partial/forced"] == own
        forced += own
    assert forced > 0
    assert len(rollouts) == 0


def test_the_last_step_leaves_nothing_behind(engine, prompts):
    whole = in_one_piece(engine, prompts)
    done = run(partial(engine, steps=3, budget=2), engine, prompts, stop=3)
    assert {t: [c.token_ids.tolist() for c in a] for t, (_, a) in done.items()} == {
        t: [c.token_ids.tolist() for c in a] for t, a in whole.items()
    }


def test_later_calls_of_a_step_ask_only_what_is_new(engine, prompts):
    """Refilling must not give a pending answer a second budget in the same step."""
    rollouts = partial(engine, budget=3)
    rollouts.ask(make_requests(prompts[:2], n=3, seed=0), SAMPLING, step=0)
    before = [r.written for r in rollouts._pending]
    rollouts.ask(make_requests(prompts[2:4], n=3, seed=1), SAMPLING, step=0)
    assert [r.written for r in rollouts._pending][: len(before)] == before
    assert len(rollouts) > len(before)
    assert {len(c.token_ids) for r in rollouts._pending for c in r.written} <= {1, 2, 3}


@pytest.mark.parametrize("stop", range(1, 6))
def test_going_on_from_a_checkpoint_is_the_same_to_the_bit(engine, prompts, stop):
    rollouts = partial(engine, budget=4)
    expected = run(rollouts, engine, prompts)
    engine.load_weights(engine.model.state_dict(), version=0)
    first = partial(engine, budget=4)
    done = run(first, engine, prompts, stop=stop)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = partial(engine, budget=4)
    second.load_state_dict(torch.load(file, weights_only=False), Renderer(prompts))
    assert len(second) == len(first)
    done |= run(second, engine, prompts, start=stop)
    assert bits(done) == bits(expected)


def bits(done):
    return {
        task: (step, [(c.token_ids.tobytes(), c.policy_logprobs.tobytes(), c.segments, c.finish_reason) for c in a])
        for task, (step, a) in done.items()
    }


def test_metrics_by_hand(engine, prompts):
    whole = in_one_piece(engine, prompts)
    lengths = {task: [len(c.token_ids) for c in answers] for task, answers in whole.items()}
    rollouts = partial(engine, budget=8)
    for step in range(4):
        requests = make_requests(prompts[2 * step : 2 * step + 2], n=3, seed=step)
        finished, _ = rollouts.ask(requests, SAMPLING, step=step)
        metrics = rollouts.metrics()
        assert metrics["partial/pending"] == len(rollouts)
        done = {r.prompt.task.id: lengths[r.prompt.task.id] for r in finished}
        if not done:
            assert metrics == {"partial/pending": float(len(rollouts)), "partial/forced": 0.0}
            continue
        tokens = [n for own in done.values() for n in own]
        assert metrics["partial/segments"] == pytest.approx(np.mean([-(-n // 8) for n in tokens]))
        # What the group's last step wrote is what its longest answers have beyond the last border.
        old = [min(n, (max(own) - 1) // 8 * 8) for own in done.values() for n in own]
        assert metrics["partial/old_share"] == pytest.approx(sum(old) / sum(tokens))


def test_a_quarantined_task_leaves_what_is_pending(engine, prompts):
    rollouts = partial(engine, budget=3)
    rollouts.ask(make_requests(prompts[:2], n=3, seed=0), SAMPLING, step=0)
    [gone, *_] = rollouts._pending
    answer = rollouts._generate
    rollouts._generate = lambda requests, sampling: [
        [] if r.prompt is gone.prompt else a for r, a in zip(requests, answer(requests, sampling), strict=True)
    ]
    finished, answers = rollouts.ask([], SAMPLING, step=1)
    assert [a for r, a in zip(finished, answers, strict=True) if r.prompt is gone.prompt] == [[]]
    assert all(r.prompt is not gone.prompt for r in rollouts._pending)


def test_the_oldest_version_that_is_learnt_from():
    assert oldest_trainable(None, 7) == 0
    assert oldest_trainable(PartialConfig(budget=1), 7) == 0
    assert oldest_trainable(PartialConfig(budget=1, mask_age=1), 7) == 7, "the current policy's tokens alone"
    assert oldest_trainable(PartialConfig(budget=1, mask_age=3), 7) == 5


def test_a_budget_that_bounds_nothing_is_told():
    sampling = SamplingConfig(max_new_tokens=8)
    RLConfig(steps=1, sampling=sampling, partial=PartialConfig(budget=7))
    with pytest.raises((ConfigError, ValueError), match=r"partial\.budget.*below sampling\.max_new_tokens = 8"):
        RLConfig(steps=1, sampling=sampling, partial=PartialConfig(budget=8))
