"""A run that can train or measure nothing stops with exit code 1 before any training, with counts and reasons."""

import io
import json

import pytest
from PIL import Image

RECIPE = """
name: worthless
output_dir: run
model: {{path: {model}}}
data:
  train: [{{use: rows.jsonl}}]
  held_out: [{{use: digit_sums, split: held_out, options: {{scans: [2]}}}}]
  max_prompt_tokens: {longest}
stages:
  - {stage}
evaluation: {{tasks: 6, validation_tasks: 8, max_new_tokens: 6}}
"""
RL = "{kind: rl, steps: 2, prompts_per_step: 2, samples_per_prompt: 2, workers: 1, loss: {algorithm: grpo}%s}"
REWARDS = {
    "nan": "def f(response, reference, *, task): return float('nan')\n",
    "raises": "def f(response, reference, *, task): raise KeyError('label')\n",
    "text": "def f(response, reference, *, task): return 'good'\n",
}


class Started(Exception):
    """Raised where a run would begin to spend time."""


@pytest.fixture
def start(thinkvl, tmp_path, tiny_checkpoint, monkeypatch):
    """`start(rows, stage)` runs the recipe: (exit code, output, errors). Code 0 is a run that began to work."""

    def started(processes, say):
        raise Started

    monkeypatch.setattr("rl.run.context.start_ray", started)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def call(rows, stage=RL % "", longest=200):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = RECIPE.format(model=tiny_checkpoint, stage=stage, longest=longest)
        (tmp_path / "recipe.yaml").write_text(recipe)
        try:
            code, output, errors = thinkvl("run", "recipe.yaml")
        except Started:
            return 0, "", ""
        assert "Traceback" not in output + errors
        assert not list((tmp_path / "run").glob("*/stage.json"))
        return code, output, errors

    return call


def rows(count=40, **fields):
    return [{"question": f"How much is {i} + 1?", "answer": str(i + 1), **fields} for i in range(count)]


def test_a_run_that_is_worth_it_begins(start):
    assert start(rows())[0] == 0


@pytest.mark.parametrize(("name", "said"), [("nan", "nan"), ("raises", "KeyError"), ("text", "'good'")])
def test_rewards_that_all_fail(start, tmp_path, name, said):
    (tmp_path / "mine.py").write_text(REWARDS[name])
    code, _, errors = start(rows(), RL % ", rewards: [{use: verifier}, {use: 'mine.py:f', weight: 0.5}]")
    assert code == 1
    assert "error: data.train: not one of 16 reference answers could be judged:\n  16 x mine.py:f: crash" in errors
    assert said in errors
    assert "thinkvl check-reward" in errors


def test_a_reward_that_needs_a_group(start, tmp_path):
    text = "def f(responses, reference, *, task):\n"
    text += "    mean = sum(map(len, responses)) / len(responses)\n"
    text += "    return [(len(r) - mean) / (0.0 if len(responses) < 2 else mean) for r in responses]\n"
    (tmp_path / "mine.py").write_text(text)
    code, _, errors = start(rows(), RL % ", rewards: [{use: 'mine.py:f'}]")
    assert code == 0, errors


def test_references_that_no_verifier_can_read(start):
    code, _, errors = start(rows(verifier="numeric", answer="a few"))
    assert code == 1
    assert "error: data.train: not one of 16 reference answers could be judged:" in errors
    assert "  16 x verifier: bad_reference" in errors


def test_some_references_that_cannot_be_read_are_counted(start, capsys):
    mixed = [
        row | ({"verifier": "numeric", "answer": "a few"} if i % 3 == 0 else {}) for i, row in enumerate(rows(300))
    ]
    assert start(mixed)[0] == 0
    output = capsys.readouterr().out
    assert "of 16 reference answers cannot be judged: " in output
    assert "x verifier: bad_reference" in output


def test_a_thinking_stage_without_solutions(start):
    code, _, errors = start(rows(), "{kind: sft, name: long_cot, steps: 2, batch_size: 2, thinking_share: 0.5}")
    assert code == 1
    assert "error: long_cot.thinking_share = 0.5: none of the first 64 tasks of data.train has a solution" in errors


def test_some_solutions_that_are_missing_are_counted(start, capsys):
    some = [row | ({"solution": "One more."} if i % 2 else {}) for i, row in enumerate(rows())]
    assert start(some, "{kind: sft, name: long_cot, steps: 2, batch_size: 2, thinking_share: 0.5}")[0] == 0
    assert "of the first 64 tasks have no solution: they train the answer alone" in capsys.readouterr().out


@pytest.mark.parametrize("stage", [RL % "", "{kind: sft, steps: 2, batch_size: 2}"], ids=["rl", "sft"])
def test_prompts_that_are_all_too_long(start, stage):
    code, _, errors = start(rows(question="How many? " * 300), stage)
    assert code == 1
    assert errors.endswith(
        "error: data.train: none of the first 64 tasks can be rendered: prompt longer than 200 tokens (64)\n"
    )


def picture(folder, name, cut=None):
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(file, "PNG")
    (folder / name).write_bytes(file.getvalue()[:cut])


@pytest.mark.parametrize("stage", [RL % "", "{kind: sft, steps: 2, batch_size: 2}"], ids=["rl", "sft"])
@pytest.mark.parametrize("how", ["missing", "no image", "empty", "cut behind its header"])
def test_images_that_are_all_unreadable(start, tmp_path, how, stage):
    if how == "no image":
        (tmp_path / "a.png").write_bytes(b"no image at all")
    elif how == "empty":
        (tmp_path / "a.png").write_bytes(b"")
    elif how.startswith("cut"):
        picture(tmp_path, "a.png", cut=200)
    code, _, errors = start(rows(image="a.png"), stage)
    assert code == 1
    expected = {
        "missing": "rows: 40 skipped, image file is missing (row 0: a.png;",
        "no image": "(row 0: a.png: give PNG, JPEG",
        "empty": "rows: 40 skipped, image file is empty (row 0: a.png;",
        "cut behind its header": "data.train: none of the first 64 tasks can be rendered: image ",
    }
    assert expected[how] in errors
    assert "error: " in errors


def test_some_images_that_are_unreadable_are_counted(start, tmp_path, capsys):
    picture(tmp_path, "a.png")
    some = rows(20, image="a.png") + [row | {"id": f"b{i}"} for i, row in enumerate(rows(20, image="lost.png"))]
    assert start(some)[0] == 0
    assert "rows: 20 skipped, image file is missing" in capsys.readouterr().out
