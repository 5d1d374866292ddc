"""One checkpoint and one vLLM for all tests here; run by `make test-vllm` in the environment that has vLLM."""

import pytest
from vllm_helpers import build_checkpoint, build_prompt

from kimi_vl import load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rollouts.engines.driver import EngineDriver


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """An exported folder, as `thinkvl export` writes it, of a shape that vLLM's CPU kernels take."""
    return build_checkpoint(tmp_path_factory.mktemp("checkpoint") / "export")


@pytest.fixture(scope="session")
def ids(checkpoint):
    """(stop ids, barred ids) of the checkpoint."""
    return stop_and_barred_ids(str(checkpoint), load_processor(checkpoint))


@pytest.fixture
def model(checkpoint):
    """Our model with the checkpoint's weights, a new one for each test."""
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def shared(checkpoint, ids):
    """The one vLLM of this process: starting it takes half a minute."""
    from rollouts.engines.vllm import VllmEngine

    stop, barred = ids
    engine = EngineDriver(VllmEngine(str(checkpoint), dtype="float32", stop_ids=stop, barred_ids=barred))
    yield engine
    engine.close()


@pytest.fixture
def engine(shared, model):
    """The vLLM with the checkpoint's weights, whatever the test before gave it."""
    shared.load_weights(model.state_dict(), version=0)
    return shared


@pytest.fixture
def prompts(rng, model):
    """Words alone, one image, two images of unlike size."""
    return [build_prompt(rng, model.config, grids=grids) for grids in ((), ((4, 6),), ((4, 4), (6, 2)))]


@pytest.fixture(scope="session")  # closing one vLLM of a process ends the others
def native_shared(checkpoint, ids):
    from rollouts.engines.vllm import VllmEngine
    from rollouts.engines.vllm_start import VllmSettings

    stop, barred = ids
    settings = VllmSettings(options={"sampler": "native", "max_num_seqs": 512})
    engine = EngineDriver(
        VllmEngine(str(checkpoint), dtype="float32", stop_ids=stop, barred_ids=barred, settings=settings)
    )
    yield engine
    engine.close()


@pytest.fixture
def native(native_shared, model):
    native_shared.load_weights(model.state_dict(), version=0)
    return native_shared
