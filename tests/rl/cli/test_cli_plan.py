"""`thinkvl plan`: what is printed, JSON, and the exit codes."""

import json

RECIPE = """
name: mine
output_dir: runs/mine
model: {path: moonshotai/Kimi-VL-A3B-Instruct, dtype: bfloat16, gradient_checkpointing: true}
stages:
  - {kind: rl, steps: 3, workers: 4, engine: vllm, ranks: {count: 4}, sampling: {max_new_tokens: 8192}}
"""


def test_what_fits_and_what_does_not(thinkvl, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    code, output, _ = thinkvl("plan", "mine.yaml", "--gpu", "h100", "--gpus", "8")
    assert code == 0
    assert "16,407,656,048 parameters on 1 x 8 H100 80 GB: 4 rollout workers, 4 learner ranks" in output
    assert "does not fit" not in output

    code, output, _ = thinkvl("plan", "mine.yaml", "rl.micro_batch_tokens=400000", "--gpus", "8", "--no-data")
    assert code == 1
    assert "does not fit: rl: learner:" in output
    assert "the smallest change that fits: rl.micro_batch_tokens=16384" in output


def test_json_has_the_numbers(thinkvl, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    code, output, _ = thinkvl("plan", "mine.yaml", "--json", "--no-data", "--answer-tokens", "1000")
    found = json.loads(output)
    assert (code, found["problems"], found["cluster"]["gpus"]) == (0, [], 8)
    assert found["stages"][0]["sequences"] == 3 * 32 * 8
    assert found["stages"][0]["assumed"]["answer"] == 1000


def test_mistakes_are_one_text(thinkvl, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    assert thinkvl("plan", "mine.yaml", "--gpu", "h1000")[0] == 2
    assert "must be tiny, a folder" in thinkvl("plan", "mine.yaml", "model.path=some/model")[2]
