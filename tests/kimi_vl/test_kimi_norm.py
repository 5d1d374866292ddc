"""Our RMS norm is transformers' to the bit, and its gradient is autograd's."""

from typing import Any

import pytest
import torch
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm

from kimi_vl.norm_kimi_vl import KimiVLRMSNorm, _RMSNorm, take_norms


def norms(width, dtype):
    """transformers' norm and ours with one weight, made from the same class as in a model."""
    pair: Any = torch.nn.ModuleList([DeepseekV3RMSNorm(width), DeepseekV3RMSNorm(width)]).to(dtype)
    weight = torch.rand(width, dtype=dtype) + 0.5
    for norm in pair:
        norm.weight.data.copy_(weight)
    take_norms(pair[1])
    assert [type(norm) for norm in pair] == [DeepseekV3RMSNorm, KimiVLRMSNorm]
    return pair


@pytest.mark.parametrize("shape", [(2, 5, 8), (3, 4)])
def test_gradients_are_those_of_finite_differences(shape):
    x, weight = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in (shape, shape[-1:]))
    assert torch.autograd.gradcheck(lambda *given: _RMSNorm.apply(*given, 1e-2), (x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_transformers_to_the_bit_and_gradients_to_rounding(dtype):
    theirs, ours = norms(64, dtype)
    x = torch.randn(3, 7, 64, dtype=dtype, requires_grad=True)
    gradient = torch.randn(3, 7, 64, dtype=dtype)
    outputs = [norm(x) for norm in (theirs, ours)]
    assert torch.equal(*outputs)
    with torch.no_grad():
        assert torch.equal(ours(x), outputs[0])
    pairs = [
        torch.autograd.grad(output, [x, norm.weight], gradient)
        for output, norm in zip(outputs, (theirs, ours), strict=True)
    ]
    for expected, found in zip(*pairs, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5 if dtype == torch.float32 else 0.0, rtol=1e-5)


def test_a_frozen_weight_gets_no_gradient():
    theirs, ours = norms(16, torch.float32)
    x = torch.randn(4, 16, requires_grad=True)
    for norm in (theirs, ours):
        norm.weight.requires_grad_(False)
    found = [torch.autograd.grad(norm(x).square().sum(), x)[0] for norm in (theirs, ours)]
    torch.testing.assert_close(*found)
    assert ours.weight.grad is None


def test_every_norm_of_the_text_model_is_ours(model):
    kinds = {type(module) for module in model.text_model.modules() if "RMSNorm" in type(module).__name__}
    assert kinds == {KimiVLRMSNorm}
