"""`rl.engine_options` of the built-in engines: checked in milliseconds, with vLLM's names and without importing it."""

import importlib.machinery
import sys

import pytest
from engine_helpers import build_tiny_folder

from rollouts.engines.engine_options import check_options
from rollouts.engines.engine_spec import EngineSpec, choose_engine
from rollouts.engines.protocol import EngineError
from rollouts.engines.transformers import TransformersEngine

ARGUMENTS = '''
import a_package_that_is_not_installed

@dataclass
class EngineArgs:
    """Arguments for vLLM engine."""

    model: str = ModelConfig.model
    dtype: ModelDType = ModelConfig.dtype
    max_num_seqs: int | None = None
    gpu_memory_utilization: float = CacheConfig.gpu_memory_utilization
    enforce_eager: bool = ModelConfig.enforce_eager
    moe_backend: MoEBackend = KernelConfig.moe_backend

    def __post_init__(self):
        inner: int = 3
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder that looks like vLLM's, and does not import."""
    (tmp_path / "vllm" / "engine").mkdir(parents=True)
    (tmp_path / "vllm" / "engine" / "arg_utils.py").write_text(ARGUMENTS)
    spec = importlib.machinery.ModuleSpec("vllm", None, origin=str(tmp_path / "vllm" / "__init__.py"))
    monkeypatch.setattr("rollouts.engines.engine_options.find_spec", lambda name: spec)
    monkeypatch.setattr("rollouts.engines.engine_spec.find_spec", lambda name: spec)
    return tmp_path / "vllm"


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_seqs": 64, "gpu_memory_utilization": 1, "enforce_eager": True, "moe_backend": "triton"},
        {"max_num_seqs": None},
        {"sampler": "native"},
        {},
    ],
)
def test_options_that_vllm_takes(installed, options, tmp_path):
    assert choose_engine("vllm", options, base=tmp_path, trains=True) == "vllm"
    assert "a_package_that_is_not_installed" not in sys.modules


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_num_seq": 64}, "max_num_seq: unknown to vLLM's EngineArgs; did you mean max_num_seqs?"),
        ({"inner": 3}, "inner: unknown to vLLM's EngineArgs; allowed are model, dtype,"),
        ({"samplr": "native"}, "samplr: unknown to vLLM's EngineArgs; did you mean sampler?"),
        ({"max_num_seqs": "64"}, "max_num_seqs = '64': must be int or None, says vLLM's EngineArgs"),
        ({"max_num_seqs": True}, "max_num_seqs = True: must be int or None, says vLLM's EngineArgs"),
        ({"enforce_eager": 1}, "enforce_eager = 1: must be bool, says vLLM's EngineArgs"),
        ({"dtype": "float16"}, "dtype: not for a recipe: set `rl.engine_dtype`"),
        ({"seed": 3}, "seed: not for a recipe: ThinkVL sets it: what a sample draws follows from the run's `seed`"),
        ({"sampler": "fast"}, "sampler = 'fast': must be exact or native"),
    ],
)
def test_options_that_vllm_does_not_take(installed, options, expected):
    with pytest.raises(EngineError) as caught:
        check_options("vllm", options)
    assert str(caught.value).startswith(f"rl.engine_options.{expected}")


def test_all_problems_are_listed_at_once(installed):
    with pytest.raises(EngineError, match=r"rl\.engine_options\.model: .*; rl\.engine_options\.max_seqs: unknown"):
        check_options("vllm", {"model": "x", "max_seqs": 3})


def test_a_vllm_that_cannot_be_read(installed):
    (installed / "engine" / "arg_utils.py").write_text("class EngineArgs(:\n")
    with pytest.raises(EngineError, match=r"cannot read the options of this vLLM: .*Install vLLM again"):
        check_options("vllm", {"max_num_seqs": 3})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"row": 8}, "rl.engine_options.row: unknown with engine transformers; did you mean rows?"),
        ({"rows": 0}, "rl.engine_options.rows = 0: must be a whole number, 1 or more"),
        ({"tokens": 2.5}, "rl.engine_options.tokens = 2.5: must be a whole number, 1 or more"),
        ({"rows": True}, "rl.engine_options.rows = True: must be a whole number, 1 or more"),
    ],
)
def test_options_that_the_embedded_engine_does_not_take(options, expected, tmp_path):
    with pytest.raises(EngineError) as caught:
        choose_engine("transformers", options, base=tmp_path, trains=True)
    assert str(caught.value) == expected


def test_options_reach_the_embedded_engine(tmp_path):
    options = {"rows": 3, "prefill_tokens": 99}
    choose_engine("transformers", options, base=tmp_path, trains=True)
    folder = build_tiny_folder(tmp_path / "model")
    spec = EngineSpec(model_path=str(folder), dtype="float32", stop_ids=(1,), barred_ids=(2,), options=options)
    engine = spec.build().engine
    assert isinstance(engine, TransformersEngine)
    limits = engine._limits
    assert (limits.rows, limits.prefill_tokens, limits.tokens) == (3, 99, 262_144)
