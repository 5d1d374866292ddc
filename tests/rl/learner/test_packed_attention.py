"""A packed row computes what each sequence computes alone, forward and backward."""

import numpy as np
import pytest
import torch
from rl_helpers import SIZES as SMALL

from kimi_vl.tiny import build_tiny_model, tiny_config
from rl.learner import packed_attention as packing
from rl.learner.packed_attention import PackedLayout, PackedSegment, packed_attention, use_packed_attention

HEADS, WIDTH = 3, 8
SEGMENTS = [  # a prompt of 5 with three responses, a lone sequence of 9, a prompt of 2 with one response
    PackedSegment(start=0, length=5),
    PackedSegment(start=5, length=3, prefix_start=0, prefix_length=5),
    PackedSegment(start=8, length=1, prefix_start=0, prefix_length=5),
    PackedSegment(start=9, length=11, prefix_start=0, prefix_length=5),
    PackedSegment(start=20, length=9),
    PackedSegment(start=29, length=2),
    PackedSegment(start=31, length=4, prefix_start=29, prefix_length=2),
]


def seen(segment):
    """The packed positions that the last token of a segment sees."""
    prefix = range(segment.prefix_start, segment.prefix_start + segment.prefix_length)
    return [*prefix, *range(segment.start, segment.start + segment.length)]


@pytest.mark.parametrize(("kernel", "cells"), [("masked", 1), ("masked", 100), ("masked", 1 << 22), ("prefix", 1)])
def test_attention_is_that_of_each_segment_alone(kernel, cells, monkeypatch):
    monkeypatch.setattr(packing, "_CELLS", cells)
    monkeypatch.setattr(packing, "takes_prefix_attention", lambda *_: kernel == "prefix")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, 35, WIDTH, dtype=torch.float64, generator=generator) for _ in range(3))
    mixed, weights = packed_attention(None, q, k, v, None, layout=PackedLayout.of(SEGMENTS), scaling=0.3)
    assert weights is None
    for segment in SEGMENTS:
        for at in range(segment.length):
            position = segment.start + at
            keys = seen(segment)[: segment.prefix_length + at + 1]
            scores = torch.einsum("hd,hkd->hk", q[0, :, position], k[0][:, keys]) * 0.3
            expected = torch.einsum("hk,hkd->hd", scores.softmax(-1), v[0][:, keys])
            torch.testing.assert_close(mixed[0, position], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("padded", [1.0, 1.25, 100.0])
def test_prefix_attention_gives_what_the_masked_calls_give(dtype, tolerance, padded, monkeypatch):
    """Forward and backward; also where a response does not follow the others of its prompt, and without a prompt."""
    monkeypatch.setattr(packing, "_PADDED", padded)
    late = PackedSegment(start=35, length=6, prefix_start=0, prefix_length=5)
    given = [torch.randn(1, HEADS, 41, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(1, 41, HEADS, WIDTH, dtype=dtype)
    results, layouts = [], []
    for prefix in (False, True):
        monkeypatch.setattr(packing, "takes_prefix_attention", lambda *_, prefix=prefix: prefix)
        layouts.append(PackedLayout.of([*SEGMENTS, late]))
        mixed, _ = packed_attention(None, *given, None, layout=layouts[-1], scaling=0.3)
        results.append((mixed, *torch.autograd.grad(mixed, given, gradient)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    prompt, other = slice(0, 5), slice(29, 31)
    assert layouts[1].prefix_plan.prefixes == (
        (prompt, slice(5, 20)),  # three responses in one call
        (other, slice(31, 35)),
        (prompt, slice(35, 41)),
    )
    assert "blocks" not in vars(layouts[1]), "no mask was made"


def test_a_cpu_takes_prefix_attention_where_values_are_as_wide_as_keys():
    wide, narrow = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 5)
    assert packing.takes_prefix_attention(wide, wide, 0.0)
    assert not packing.takes_prefix_attention(wide, narrow, 0.0)
    assert not packing.takes_prefix_attention(wide, wide, 0.1)
    assert not packing.takes_prefix_attention(wide.to("meta"), wide.to("meta"), 0.0)


def ragged_attention(q, k, v, plan, scaling, dropout):
    """What flash attention computes: each segment's queries are the last of its keys, and see those up to their own."""
    outputs = []
    for i in range(len(plan.query_starts) - 1):
        (a, b), (c, d) = plan.query_starts[i : i + 2].tolist(), plan.key_starts[i : i + 2].tolist()
        assert b - a <= plan.longest_queries
        assert d - c <= plan.longest_keys
        scores = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) * scaling
        hidden = torch.ones(b - a, d - c, dtype=torch.bool).triu(1 + (d - c) - (b - a))
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v[c:d]))
    return torch.cat(outputs)


def test_the_plan_of_flash_attention_gives_what_the_masked_calls_give(monkeypatch):
    """Forward and backward, with values narrower than keys; the kernel itself, which needs a GPU, is replaced."""
    generator = torch.Generator().manual_seed(0)
    results = []
    for flash in (False, True):
        q, k, v = (
            torch.randn(1, HEADS, 35, width, dtype=torch.float64, generator=generator.manual_seed(width + i))
            .requires_grad_()
            for i, width in enumerate((WIDTH, WIDTH, 5))
        )  # fmt: skip
        monkeypatch.setattr(packing, "_takes_flash", lambda query, flash=flash: flash)
        monkeypatch.setattr(packing, "_flash", ragged_attention)
        layout = PackedLayout.of(SEGMENTS)
        mixed, _ = packed_attention(None, q, k, v, None, layout=layout, scaling=0.3)
        assert ("blocks" in vars(layout)) is not flash, "a mask is quadratic: flash attention must not make one"
        mixed.square().sum().backward()
        results.append((mixed, q.grad, k.grad, v.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_torch_takes_the_arguments_of_flash_attention():
    """Shapes and gradients, on the meta device: what can be seen of the kernel without a GPU."""
    layout = PackedLayout.of(SEGMENTS, "meta")
    q, k = (torch.empty(35, 16, 192, device="meta", dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    v = torch.empty(35, 16, 128, device="meta", dtype=torch.bfloat16, requires_grad=True)
    mixed = packing._flash_packed(q, k, v, layout.ragged, 0.3, 0.0)
    assert mixed.shape == v.shape
    assert mixed.dtype == torch.bfloat16
    mixed.sum().backward()
    assert q.grad.shape == q.shape
    assert v.grad.shape == v.shape


def test_a_cpu_takes_no_flash_attention_of_gpus():
    assert not packing._takes_flash(torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    "segments",
    [
        [PackedSegment(start=1, length=2)],
        [PackedSegment(start=0, length=2), PackedSegment(start=3, length=2)],
        [PackedSegment(start=0, length=2), PackedSegment(start=1, length=2)],
    ],
)
def test_segments_with_gaps_are_refused(segments):
    with pytest.raises(ValueError, match="without gaps"):
        PackedLayout.of(segments)


def test_hidden_states_and_gradients_are_those_of_plain_rows(rng):
    """Through every layer, experts included: a prompt with its responses in one row, against one row each."""
    model = build_tiny_model(tiny_config(SMALL, num_tokens=40), seed=0)
    prompt, responses = rng.integers(0, 40, 6), [rng.integers(0, 40, n) for n in (4, 1, 9)]
    embed = model.model.language_model.embed_tokens

    plain = [
        model.model.language_model(inputs_embeds=embed(torch.tensor(np.r_[prompt, r]))[None]).last_hidden_state[0, 6:]
        for r in responses
    ]
    torch.cat(plain).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    starts = np.cumsum([6, 4, 1])
    segments = [PackedSegment(start=0, length=6)] + [
        PackedSegment(start=int(s), length=len(r), prefix_start=0, prefix_length=6)
        for s, r in zip(starts, responses, strict=True)
    ]
    use_packed_attention(model.model.language_model)
    packed = model.model.language_model(
        inputs_embeds=embed(torch.tensor(np.concatenate([prompt, *responses])))[None],
        position_ids=torch.tensor(np.concatenate([np.arange(6), *(6 + np.arange(len(r)) for r in responses)]))[None],
        layout=PackedLayout.of(segments),
    ).last_hidden_state[0, 6:]
    torch.testing.assert_close(packed, torch.cat(plain), rtol=0, atol=1e-5)
    packed.square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    assert any("experts" in name for name in found)
    apart = sum(float((found[n] - g).square().sum()) for n, g in expected.items())
    assert (apart / sum(float(g.square().sum()) for g in expected.values())) ** 0.5 < 1e-5
