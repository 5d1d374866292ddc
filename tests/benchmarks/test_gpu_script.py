"""benchmarks/gpu.py: it runs without a GPU, says nothing about one, and what it says with one is computed right."""

import json
import subprocess
import sys

import gpu
import pytest
import torch

from kimi_vl import KimiVLConfig
from rl.plan import roofline

# What a bare GPU machine has not: importing one of these fails, as it does where they are not installed.
ABSENT = (
    "ray",
    "trl",
    "datasets",
    "pydantic",
    "rapidfuzz",
    "math_verify",
    "latex2sympy2_extended",
    "dill",
    "torchao",
    "xxhash",
)


@pytest.fixture(scope="module")
def finished(folder):
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in ABSENT)
    script = str(folder / "gpu.py")
    code = f"import sys, runpy; {blocked}; sys.argv[1:] = ['--quick']; runpy.run_path({script!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd="/")


@pytest.mark.skipif(torch.cuda.is_available(), reason="what the script does without a GPU")
def test_it_runs_on_a_cpu_and_gives_no_figure_of_a_gpu(finished):
    assert finished.returncode == 0, finished.stderr[-2000:]
    last = json.loads(finished.stdout.splitlines()[-1])
    assert last["device"] == "cpu, tiny shapes"
    parts = [name.replace(",", " ").split()[0] for name in last["median_seconds"]]
    assert parts == ["rollouts", "lora", "lora", "full", "full"]
    assert all(seconds > 0 for seconds in last["median_seconds"].values())
    assert set(last["peak_gigabytes"].values()) == {None}
    assert not any("MFU" in name or "floor" in name for name in last)
    assert "TFLOP" not in finished.stdout
    gaps = last["gaps"]
    assert 0 < gaps["logprobs float32"] < gaps["logprobs bfloat16"]
    assert not gpu.too_far(gaps)


def test_a_wrong_kernel_is_named():
    gaps = dict.fromkeys(["logprobs float32", "gradient float32", "attention bfloat16"], 1e-6)
    gaps["attention gradient bfloat16"] = float("nan")
    assert gpu.too_far(gaps) == ["attention gradient bfloat16: nan, at most 0.02"]


def test_the_published_model_is_built_where_it_stays():
    plan = gpu.Plan(device=torch.device("meta"), config=KimiVLConfig(), tokens=(), rollouts=(), runs=1)
    model = gpu.build(plan)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device.type for t in tensors} == {"meta"}, "33 GB must not pass through the CPU"
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert sum(p.numel() for p in model.parameters()) == 16_407_654_384
    assert {b.dtype for name, b in model.named_buffers() if "correction" in name} == {torch.float32}


def test_a_row_against_its_floor():
    parts = [roofline.Work(flops=100, bytes=40), roofline.Work(flops=10, bytes=90)]
    row = gpu.row("rollouts", 7, 8.0, 3.5, parts, (50.0, 30.0))
    assert row.floor == 100 / 50 + 90 / 30
    assert row.mfu == 110 / 50 / 8.0
    assert row.gigabytes == 3.5


def test_what_does_not_fit_is_a_row_of_its_own(capsys):
    plan = gpu.Plan(device=torch.device("cpu"), config=None, tokens=(), rollouts=(), runs=1)

    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")

    seconds, memory = gpu.measure(plan, too_large)
    row = gpu.row("full", 32768, seconds, memory, roofline.Work(1, 1), (1.0, 1.0))
    assert (row.seconds, row.floor, row.mfu) == (None, None, None)
    gpu.show([row])
    assert "| full | 32768 | out of memory |" in capsys.readouterr().out


@pytest.mark.parametrize("tokens", [64, 2048])
def test_a_sample_takes_the_places_it_says(tokens):
    sample = gpu.sample(tokens, 50)
    assert len(sample.prompt.input_ids) + len(sample.token_ids) - 1 == tokens


def test_distinct_experts_of_a_step_are_counted():
    class Engine:
        def generate(self, requests, sampling):
            routes = torch.tensor(
                [  # [samples, tokens, layers, k]; the first token comes from the prefill and does not count
                    [[[9, 8]], [[0, 1]], [[2, 3]]],
                    [[[7, 6]], [[1, 2]], [[2, 3]]],
                ]
            ).numpy()
            return [[type("Completion", (), {"routed_experts": r}) for r in routes]]

    assert gpu._experts_met(Engine(), []) == 2.5  # {0, 1, 2} and {2, 3}
