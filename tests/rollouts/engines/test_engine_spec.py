"""Which engine a worker gets, and what is said where it cannot have it."""

import ast
import importlib.machinery
import importlib.util
from pathlib import Path

import pytest
from engine_helpers import SIZES, build_tiny_folder

from configs.engine import ENGINES
from kimi_vl import TinySizes, create_tiny_checkpoint
from rollouts.engines.engine_spec import VLLM_CPU_LATENTS, EngineSpec, check_engine, check_sizes
from rollouts.engines.protocol import EngineError
from rollouts.engines.transformers import TransformersEngine
from rollouts.weight_checksums import checksums


@pytest.mark.parametrize("name", ENGINES)
def test_every_line_of_the_table_names_a_function_of_a_spec(name):
    module, _, function = ENGINES[name].partition(":")
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    assert [argument.arg for argument in found.args.args] == ["spec"]


def test_the_embedded_engine_is_built_by_default(tmp_path):
    folder = build_tiny_folder(tmp_path / "model")
    engine = EngineSpec(model_path=str(folder), dtype="float32", stop_ids=(1,), barred_ids=(2,)).build()
    assert isinstance(engine.engine, TransformersEngine)
    assert engine.weight_checksums() == checksums(engine.engine.model.state_dict())
    assert engine.heartbeat == 0


@pytest.mark.parametrize(
    "spec", [None, importlib.machinery.ModuleSpec("vllm", None, is_package=True)], ids=["missing", "a mere folder"]
)
def test_without_vllm_the_error_says_how_to_get_it(monkeypatch, spec):
    monkeypatch.setattr("rollouts.engines.engine_spec.find_spec", lambda name: spec)
    with pytest.raises(EngineError, match=r"vLLM is not installed here. `make vllm-env` makes an environment"):
        check_engine("vllm")
    check_engine("transformers")


def test_sizes_that_its_cpu_kernels_do_not_know(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = build_tiny_folder(tmp_path / "model")
    assert SIZES.kv_lora_rank == 20
    with pytest.raises(EngineError) as caught:
        check_sizes("vllm", str(folder))
    assert "kv_lora_rank = 20 (must be 512), qk_rope_head_dim = 16 (must be 64)" in str(caught.value)
    assert "hidden_size = 48 (must be a multiple of 32)" in str(caught.value)
    check_sizes("transformers", str(folder))
    good = create_tiny_checkpoint(tmp_path / "good", corpus=["1 + 2"], sizes=TinySizes(**VLLM_CPU_LATENTS))
    check_sizes("vllm", str(good))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_sizes("vllm", str(folder))
