"""Log-probs by tiles equal those of the whole table, forward and backward, and the table never exists."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rl.learner.logprobs import token_logprobs
from rollouts.engines.sampling import barred_token_mask, policy_logprobs

VOCABULARY, HIDDEN = 50, 8


def setting(rng, count=37, dtype=torch.float64):
    head = torch.from_numpy(rng.normal(size=(VOCABULARY, HIDDEN))).to(dtype).requires_grad_()
    hidden = torch.from_numpy(rng.normal(size=(count, HIDDEN))).to(dtype).requires_grad_()
    barred = barred_token_mask(VOCABULARY, [3, 47, 48, 49])
    free = torch.tensor([i for i in range(VOCABULARY) if not barred[i]])
    return head, hidden, free[torch.from_numpy(rng.integers(0, len(free), count))], barred


def whole(hidden, head, targets, barred, temperature):
    """The plain computation by torch's own functions, over the tokens that are not barred."""
    distribution = torch.distributions.Categorical(logits=(hidden @ head.T)[:, ~barred] / temperature)
    return distribution.log_prob((~barred).cumsum(0)[targets] - 1), distribution.entropy()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("tile", [1, 7, 60, 400, 1 << 24])
def test_tiles_change_neither_values_nor_gradients(rng, dtype, tolerance, tile):
    head, hidden, targets, barred = setting(rng, dtype=dtype)
    weights = [torch.from_numpy(rng.normal(size=37)).to(dtype) for _ in range(2)]
    results = []
    for values in (
        whole(hidden, head, targets, barred, 0.7),
        token_logprobs(hidden, head, targets, temperature=0.7, barred=barred, tile=tile),
    ):
        total = sum((v * w).sum() for v, w in zip(values, weights, strict=True))
        results.append([*values, *torch.autograd.grad(total, [hidden, head])])
    for expected, found in zip(*results, strict=True):
        assert found.dtype == dtype
        expected, found = expected.detach(), found.detach()
        assert (expected - found).abs().max() < tolerance * max(1.0, float(expected.abs().max()))


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.mm.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("frozen", ["hidden", "head"])
def test_what_is_frozen_gets_no_gradient_and_costs_no_product(rng, frozen):
    head, hidden, targets, barred = setting(rng)
    sides = {"hidden": hidden, "head": head}
    logprobs, _ = token_logprobs(hidden, head, targets, temperature=0.7, barred=barred)
    expected = dict(zip(sides, torch.autograd.grad(logprobs.sum(), [hidden, head]), strict=True))
    sides[frozen].requires_grad_(False)
    with Products() as products:
        logprobs, _ = token_logprobs(hidden, head, targets, temperature=0.7, barred=barred)
        logprobs.sum().backward()
    assert products.count == 3, "the logits forward, the logits backward, one gradient"
    assert sides.pop(frozen).grad is None
    ((name, side),) = sides.items()
    assert torch.equal(side.grad, expected[name])


def test_values_are_those_of_the_engine(rng):
    head, hidden, targets, barred = setting(rng, dtype=torch.float32)
    table = policy_logprobs(hidden @ head.T, 0.7, barred)
    logprobs, _ = token_logprobs(hidden, head, targets, temperature=0.7, barred=barred, tile=100)
    assert torch.allclose(logprobs, table.gather(-1, targets[:, None])[:, 0], atol=1e-6)


def test_a_tile_of_barred_tokens_alone_and_huge_logits_stay_finite():
    head = torch.tensor([[0.0], [0.0], [1.0], [-1.0]]).requires_grad_()
    hidden = torch.tensor([[1e4], [0.0]]).requires_grad_()
    barred = torch.tensor([True, True, False, False])
    logprobs, entropy = token_logprobs(hidden, head, torch.tensor([2, 3]), temperature=1.0, barred=barred, tile=1)
    assert logprobs.tolist() == pytest.approx([0.0, -0.693147], abs=1e-6)
    assert entropy.tolist() == pytest.approx([0.0, 0.693147], abs=1e-6)
    (logprobs.sum() + entropy.sum()).backward()
    assert hidden.grad.isfinite().all()
    assert head.grad.isfinite().all()


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made inside held at one time."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key, size):
        self._known.discard(key)
        self.live -= size


def test_the_peak_is_a_sixteenth_of_all_logits(rng):
    tokens, vocabulary = 2048, 8192
    full = 4 * tokens * vocabulary
    head = torch.randn(vocabulary, HIDDEN, requires_grad=True)
    hidden = torch.randn(tokens, HIDDEN, requires_grad=True)
    targets, barred = torch.arange(tokens), torch.zeros(vocabulary, dtype=torch.bool)
    with LiveBytes() as plain:
        policy_logprobs(hidden @ head.T, 1.0, barred).gather(-1, targets[:, None]).sum().backward()
    with LiveBytes() as tiled:
        token_logprobs(hidden, head, targets, temperature=1.0, barred=barred, tile=1 << 16)[0].sum().backward()
    assert plain.peak >= 2 * full, "the measure sees the logits and their gradient"
    assert tiled.peak <= full / 16


def test_no_token_gives_no_logprob(rng):
    head, hidden, targets, barred = setting(rng, count=1)
    logprobs, entropy = token_logprobs(hidden[:0], head, targets[:0], temperature=1.0, barred=barred)
    assert logprobs.shape == entropy.shape == (0,)


@pytest.mark.parametrize("tile", [60, 1 << 24])
def test_the_gradient_of_one_output_alone_is_that_of_the_plain_computation(rng, tile):
    """The backward pass leaves out what nobody asked for."""
    head, hidden, targets, barred = setting(rng)
    expected = whole(hidden, head, targets, barred, 0.7)
    found = token_logprobs(hidden, head, targets, temperature=0.7, barred=barred, tile=tile)
    for plain, tiled in zip(expected, found, strict=True):
        wanted = torch.autograd.grad(plain.square().sum(), [hidden, head], retain_graph=True)
        given = torch.autograd.grad(tiled.square().sum(), [hidden, head], retain_graph=True)
        for one, other in zip(wanted, given, strict=True):
            torch.testing.assert_close(one, other)


def test_a_barred_target_has_no_probability_at_any_temperature(rng):
    head, hidden, _, barred = setting(rng, dtype=torch.float32)
    for temperature in (0.01, 1.0):
        logprobs, entropy = token_logprobs(
            hidden, head, torch.full((37,), 48), temperature=temperature, barred=barred, tile=60
        )
        assert (logprobs == -torch.inf).all()
        assert entropy.isfinite().all()
