"""A model folder with the hub's own files, served by vLLM without running its code; and images of 2506's size."""

import json

import pytest
from hub_folder import CODE, build_hub_folder
from vllm_helpers import build_prompt, embedded, gaps, move, requests_for

from configs.rl import SamplingConfig
from kimi_vl import load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rollouts.engines.driver import EngineDriver

pytestmark = pytest.mark.timeout(900)
THRESHOLD = 1e-3
PLAIN = SamplingConfig(max_new_tokens=12)
LARGEST = (128, 132)  # patches of an image with 4,224 tokens; the processor of 2506 makes up to 4,213


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    return build_hub_folder(tmp_path_factory.mktemp("hub") / "Kimi-VL-A3B-Thinking-2506")


@pytest.fixture(scope="session")
def hub_ids(hub):
    return stop_and_barred_ids(str(hub), load_processor(hub))


@pytest.fixture(scope="session")
def hub_engine(hub, hub_ids):
    from rollouts.engines.vllm import VllmEngine

    stop, barred = hub_ids
    engine = EngineDriver(VllmEngine(str(hub), dtype="float32", stop_ids=stop, barred_ids=barred))
    yield engine
    engine.close()


def test_the_folder_is_the_hubs(hub):
    names = {path.name for path in hub.iterdir()}
    assert {*CODE, "tiktoken.model", "model.safetensors.index.json", "preprocessor_config.json"} <= names
    assert not {"tokenizer.json", "model.safetensors"} & names
    config = json.loads((hub / "config.json").read_text())
    assert config["auto_map"]["AutoConfig"] == "configuration_kimi_vl.KimiVLConfig"
    assert config["text_config"]["rope_theta"]


def test_the_hubs_folder_gives_the_embedded_engines_completions(hub, hub_ids, hub_engine, rng):
    """From its own weights, and after a weight sync."""
    model = load_model(hub)
    prompts = [build_prompt(rng, model.config, grids=grids) for grids in ((), ((4, 6),), ((4, 4), (6, 2)))]
    requests = requests_for(prompts)
    assert (
        max(gaps(hub_engine.generate(requests, PLAIN), embedded(model, hub_ids).generate(requests, PLAIN))) < THRESHOLD
    )
    move(model)
    hub_engine.load_weights(model.state_dict(), version=1)
    assert (
        max(gaps(hub_engine.generate(requests, PLAIN), embedded(model, hub_ids).generate(requests, PLAIN))) < THRESHOLD
    )


def test_an_image_of_the_largest_size(hub, hub_ids, hub_engine, rng):
    """More tokens than vLLM reads in one pass by default, 2,048, and than it keeps of encoded images."""
    model = load_model(hub)
    hub_engine.load_weights(model.state_dict(), version=2)
    requests = requests_for([build_prompt(rng, model.config, grids=(LARGEST,))], n=1)
    few = SamplingConfig(max_new_tokens=3)
    assert max(gaps(hub_engine.generate(requests, few), embedded(model, hub_ids).generate(requests, few))) < THRESHOLD


def test_an_image_that_vllm_would_wait_for_is_refused(hub_engine, hub, rng, monkeypatch):
    scheduler = hub_engine.engine._vllm.engine_core.engine_core.scheduler
    monkeypatch.setattr(scheduler, "max_num_encoder_input_tokens", 2048)
    requests = requests_for([build_prompt(rng, load_model(hub).config, grids=(LARGEST,))], n=1)
    with pytest.raises(
        ValueError, match=r"an image of 4224 tokens, and vLLM takes at most 2048; raise rl\.engine_options"
    ):
        hub_engine.generate(requests, PLAIN)
