"""The example engine behind the driver, against a server of this process."""

from pathlib import Path

import numpy as np
import pytest
from engine_helpers import build_prompt
from openai_server import openai_server

from configs.rl import SamplingConfig
from rollouts.engines.engine_spec import EngineSpec, choose_engine
from rollouts.types import Request

FILE = Path(__file__).parents[3] / "examples" / "engine" / "openai_engine.py"
SAMPLING = SamplingConfig(max_new_tokens=50)


@pytest.fixture
def server():
    with openai_server() as found:
        yield found


@pytest.fixture
def driver(server):
    options = {"url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m"}
    engine = choose_engine(f"{FILE}:OpenAIEngine", options, base=Path(), trains=False)
    found = EngineSpec(model_path="", dtype="float32", stop_ids=(7,), barred_ids=(), engine=engine).build()
    yield found
    found.close()


@pytest.fixture
def prompt(rng, tiny_model):
    return build_prompt(rng, tiny_model.config, text=5)


def test_completions_of_a_server(driver, server, prompt):
    first = int(prompt.input_ids[-1]) + 1
    groups = driver.generate([Request(prompt=prompt, n=2, seed=3), Request(prompt=prompt, n=1, seed=1)], SAMPLING)
    assert [[c.token_ids.tolist() for c in group] for group in groups] == [
        [[first, first + 1, first + 2], [first, first + 1, first + 2, first + 3]],
        [[first]],
    ]
    assert groups[0][0].policy_logprobs.tolist() == groups[0][0].sampler_logprobs.tolist() == [0.0, -0.5, -1.0]
    assert groups[0][0].finish_reason == "stop"
    path, body = server.bodies[0]
    assert path == "/v1/completions"
    assert (body["prompt"], body["max_tokens"]) == (prompt.input_ids.tolist(), 50)
    assert (body["stop_token_ids"], body["temperature"]) == ([7], 1.0)
    greedy = SamplingConfig(max_new_tokens=50, temperature=0)
    [[completion]] = driver.generate([Request(prompt=prompt, n=1, seed=3)], greedy)
    assert not completion.sampler_logprobs.any()


def test_abort_returns_what_is_there(driver, server, prompt):
    stream = driver.stream([Request(prompt=prompt, n=1, seed=2), Request(prompt=prompt, n=2, seed=99)], SAMPLING)
    assert next(stream)[0] == 0
    driver.abort()
    [(index, completions)] = stream
    assert (index, len(completions)) == (1, 2)
    assert {c.finish_reason for c in completions} == {"abort"}
    assert not any(len(c.token_ids) for c in completions)
    assert not driver.engine._running


def test_what_it_cannot_do_is_refused(driver, rng, tiny_model, prompt):
    with pytest.raises(ValueError, match="serves fixed weights and cannot load others"):
        driver.load_weights({"a": np.zeros(2)}, version=1)
    image = build_prompt(rng, tiny_model.config, text=5, grids=((2, 2),))
    with pytest.raises(ValueError, match="prompts of text alone"):
        driver.generate([Request(prompt=image, n=1, seed=1)], SAMPLING)
    with pytest.raises(ValueError, match="without any filter"):
        driver.generate([Request(prompt=prompt, n=1, seed=1)], SamplingConfig(max_new_tokens=5, top_p=0.9))
    with pytest.raises(OSError, match="500"):
        driver.generate([Request(prompt=prompt, n=1, seed=666)], SAMPLING)


def test_it_stays_small():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 100
