"""A run whose images are rendered in Ray tasks ends in the same bits, in one process and on learner ranks."""

import pytest
from test_resume import different

from kimi_vl import load_model
from rollouts.workers import render_tasks

SHORT = ("instruct=null", "long_cot=null", "rl.steps=2", "rl.eval_every=2", "evaluation.tasks=4", "export=false")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ranks", [(), ("rl.ranks.count=2",)])
def test_the_same_weights(make_mini, tmp_path, monkeypatch, ranks):
    found = []

    def counted(task, *refs, made=render_tasks._prompt_of):
        found.append(made(task, *refs))
        return found[-1]

    monkeypatch.setattr(render_tasks, "_prompt_of", counted)
    monkeypatch.setattr(render_tasks, "free_cpus", lambda: 2)
    models, rollouts = [], []
    for limit, prompts in ((200_000, 0), (1, 12)):
        monkeypatch.setattr(render_tasks, "LARGE_PIXELS", limit)
        mini = make_mini(*SHORT, *ranks)
        mini.here()
        assert len(found) == prompts, "scans of digits are small"
        models.append(load_model(mini.run_folder / "rl" / "model").state_dict())
        rollouts.append(mini.rollouts())
        mini.folder.rename(tmp_path / f"of-{limit}")
    assert different(*models) == []
    assert rollouts[0] == rollouts[1]
    assert all(isinstance(prompt.patches, render_tasks.StoredPatches) for prompt in found)
