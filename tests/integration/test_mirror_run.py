"""A run whose machine goes away goes on from its mirror on another one."""

import shutil

import pytest
import torch

from kimi_vl import load_model
from rl.learner.supervised_learner import SupervisedLearner


@pytest.mark.timeout(900)
def test_a_run_goes_on_from_its_mirror(whole_run, make_mini, tmp_path, monkeypatch):
    mini = make_mini("long_cot=null", "rl=null", "export=false", f"mirror=file://{tmp_path}/there")
    update = SupervisedLearner.update

    def stopped(learner, examples):
        if learner.version == 5:
            raise KeyboardInterrupt
        return update(learner, examples)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedLearner, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            mini.here()
    shutil.rmtree(mini.run_folder)
    printed = mini.here()
    assert "files of the run are from file://" in printed
    assert "resuming instruct after step 4" in printed
    own, whole = (load_model(m.run_folder / "instruct" / "model").state_dict() for m in (mini, whole_run[0]))
    assert [name for name in whole if not torch.equal(own[name], whole[name])] == []
    shutil.rmtree(mini.run_folder)
    assert "instruct: already done" in mini.here()
