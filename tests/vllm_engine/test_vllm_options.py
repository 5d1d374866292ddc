"""`rl.engine_options` against the installed vLLM: what is refused exists, and the rest reaches `EngineArgs`."""

import pytest

from rollouts.engines.engine_options import REFUSED, check_options, vllm_arguments
from rollouts.engines.protocol import EngineError


class StartedError(Exception):
    """Raised in place of an engine's start."""


@pytest.fixture
def arguments_of(checkpoint, monkeypatch):
    """`start(options)`: the `EngineArgs` that vLLM would be started with."""
    from vllm.v1.engine.llm_engine import LLMEngine

    from rollouts.engines.vllm_start import VllmSettings, start_vllm

    seen = []

    def from_engine_args(arguments):
        seen.append(arguments)
        raise StartedError

    monkeypatch.setattr(LLMEngine, "from_engine_args", from_engine_args)

    def start(options, **settings):
        with pytest.raises(StartedError):
            start_vllm(
                str(checkpoint), dtype="float32", barred_ids=[3], settings=VllmSettings(options=options, **settings)
            )
        return seen.pop()

    return start


def test_what_is_refused_are_options_of_vllm():
    assert not REFUSED.keys() - vllm_arguments().keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_num_seq": 8}, r"max_num_seq: unknown to vLLM's EngineArgs; did you mean max_num_seqs"),
        ({"max_num_seqs": "many"}, r"max_num_seqs = 'many': must be int or None"),
        ({"dtype": "float16"}, r"dtype: not for a recipe: set `rl.engine_dtype`"),
        ({"sampler": "fast"}, r"sampler = 'fast': must be exact or native"),
    ],
)
def test_options_that_vllm_would_not_take(options, message):
    with pytest.raises(EngineError, match=message):
        check_options("vllm", options)


def test_options_replace_the_defaults_and_nothing_else(arguments_of):
    plain = arguments_of({})
    assert (plain.max_num_seqs, plain.max_num_batched_tokens) == (256, 8192)
    given = {"max_num_seqs": 8, "max_num_batched_tokens": 1024, "moe_backend": "triton", "tensor_parallel_size": 2}
    check_options("vllm", given)
    found = arguments_of(given, context=512)
    assert {name: getattr(found, name) for name in given} == given
    assert (found.max_model_len, found.logprobs_mode, found.async_scheduling) == (512, "processed_logits", False)
    native = arguments_of({"sampler": "native"})
    assert (native.logprobs_mode, native.async_scheduling) == ("processed_logprobs", True)
    assert native.logits_processors is None
