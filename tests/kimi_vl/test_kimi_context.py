"""A longer context: another config over the same weight files, which take no more disk space."""

import os

import pytest
import torch

from kimi_vl import load_model
from kimi_vl.family import extend_context, load_config, load_processor


def no_links(*_):
    raise OSError("Invalid cross-device link")


@pytest.mark.parametrize("linked", [True, False])
def test_the_weights_are_linked_or_copied_and_the_config_is_new(folder, tmp_path, monkeypatch, linked):
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    longer = extend_context(folder, tmp_path / "longer", rope_base=5e5, context=2048)
    assert (folder / "model.safetensors").samefile(longer / "model.safetensors") == linked
    before, after = load_model(folder), load_model(longer)
    assert [
        name for name, value in before.state_dict().items() if not torch.equal(value, after.state_dict()[name])
    ] == []
    assert (load_config(longer).rope_base, load_config(longer).context) == (5e5, 2048)
    assert load_config(folder).rope_base != 5e5
    assert load_processor(longer).tokenizer.model_max_length == 2048
    assert {file.name for file in longer.iterdir()} == {file.name for file in folder.iterdir()}
    assert after.generation_config.eos_token_id == before.generation_config.eos_token_id


def test_a_half_made_folder_is_made_again(folder, tmp_path):
    (tmp_path / "longer").mkdir()
    (tmp_path / "longer" / "model.safetensors").write_bytes(b"cut")
    longer = extend_context(folder, tmp_path / "longer", rope_base=5e5, context=2048)
    assert (folder / "model.safetensors").samefile(longer / "model.safetensors")
