"""Advantages from rewards, one per response or per token. Pure functions, in the symbols of the papers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_TOGETHER = 128  # responses: a table of more leaves the processor's cache


def centered(rewards: Sequence[float]) -> np.ndarray:
    """`A_j = r_j - mean(r)` (Kimi k1.5 §2.3.2, where the mean stands for tau log Z; Dr.GRPO eq. 2)."""
    r = np.asarray(rewards, dtype=np.float64)
    return r - r.mean()


def grpo(rewards: Sequence[float], *, epsilon: float = 1e-6) -> np.ndarray:
    """`A_j = (r_j - mean(r)) / (std(r) + epsilon)`, population std (DeepSeekMath §4.1.1); all 0 in a constant group."""
    a = centered(rewards)
    return a / (a.std() + epsilon)


def leave_one_out(rewards: Sequence[float]) -> np.ndarray:
    """`A_j = r_j - mean of the other k - 1 rewards` (RLOO §2.3), which is `k / (k - 1)` times the centred reward.

    Raises ValueError for fewer than two rewards: there is no other.
    """
    if len(rewards) < 2:
        raise ValueError(f"{len(rewards)} rewards: a leave-one-out baseline needs at least 2")
    return centered(rewards) * (len(rewards) / (len(rewards) - 1))


def standardise(values: Sequence[np.ndarray], *, epsilon: float = 1e-8) -> list[np.ndarray]:
    """`(x - mean) / std` of all numbers of a step, given in parts; population std (REINFORCE++ §3)."""
    flat = np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in values])
    if not len(flat):
        return [np.asarray(v, dtype=np.float64) for v in values]
    mean, std = flat.mean(), flat.std()
    return [(np.asarray(v, dtype=np.float64) - mean) / (std + epsilon) for v in values]


def rewards_of_tokens(reward: float, penalties: np.ndarray) -> np.ndarray:
    """Reward of each of T tokens: `-penalty_t`, and on the last one, if there is one, the verifier's `reward`."""
    r = -np.asarray(penalties, dtype=np.float64)
    r[-1:] += reward
    return r


def gae(
    rewards: Sequence[np.ndarray], values: Sequence[np.ndarray], *, gamma: float, lam: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Generalised advantages `[T]` and returns `A + V` of each response (1506.02438 eq. 16).

    `delta_t = r_t + gamma V_{t+1} - V_t`, `A_t = delta_t + gamma lam A_{t+1}`; V is 0 after the last token, also
    where the limit cut the response off. With `V = 0`, `gamma = lam = 1` the advantage is the reward to go.
    """
    following = (np.append(v[1:], 0.0).astype(np.float64) for v in values)
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    advantages = [a for i in range(0, len(deltas), _TOGETHER) for a in _sums(deltas[i : i + _TOGETHER], gamma * lam)]
    return [(a, a + v) for a, v in zip(advantages, values, strict=True)]


def _sums(terms: Sequence[np.ndarray], factor: float) -> list[np.ndarray]:
    """`s_t = x_t + factor * s_{t+1}` of arrays x, one time step of all arrays at once, from their ends."""
    table = np.zeros((max(map(len, terms)), len(terms)))
    for column, own in enumerate(terms):
        table[: len(own), column] = own[::-1]
    running = np.zeros(len(terms))
    for row in table:
        row += factor * running
        running = row
    return [table[: len(own), column][::-1].copy() for column, own in enumerate(terms)]


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """`1 - Var(R - V) / Var(R)`: 1 for a critic that knows the returns, 0 for a constant one; NaN if R is constant."""
    spread = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / spread if spread > 1e-12 else float("nan")
