"""Two vLLM processes share one model; prints the gaps to the embedded engine, before and after a weight sync."""

import json
import sys

import numpy as np
from vllm_helpers import build_prompt, embedded, gaps, move, requests_for

from configs.rl import SamplingConfig
from kimi_vl import load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rollouts.engines.driver import EngineDriver
from rollouts.engines.vllm import VllmEngine
from rollouts.engines.vllm_start import VllmSettings


def main(folder):
    stop, barred = ids = stop_and_barred_ids(folder, load_processor(folder))
    settings = VllmSettings(options={"tensor_parallel_size": 2})
    engine = EngineDriver(VllmEngine(folder, dtype="float32", stop_ids=stop, barred_ids=barred, settings=settings))
    model, sampling = load_model(folder), SamplingConfig(max_new_tokens=12)
    rng = np.random.default_rng(0)
    requests = requests_for([build_prompt(rng, model.config, grids=grids) for grids in ((), ((4, 6),))])
    found = [max(gaps(engine.generate(requests, sampling), embedded(model, ids).generate(requests, sampling)))]
    engine.load_weights(move(model).state_dict(), version=1)
    found.append(max(gaps(engine.generate(requests, sampling), embedded(model, ids).generate(requests, sampling))))
    engine.close()
    print("gaps", json.dumps(found), flush=True)


if __name__ == "__main__":  # vLLM's own processes import this file
    main(sys.argv[1])
