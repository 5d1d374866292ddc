"""Is the interval of the remaining time honest? Simulated runs with noisy, drifting and stalling steps.

    python benchmarks/eta.py [--quick] [--seeds 200] [--fit]

A run has 20 to 1,000 steps of one of fourteen kinds. After 5 %, 10 %, 25 %, 50 %, 75 % and 90 % of its steps,
`rl.run.eta.remaining` says how long the rest takes; the script counts how often the truth lies in the interval. Seeds
are others than those of `--fit`, and three kinds (`SURPRISES`) had no part in it. `--fit` chooses the constants of
`rl/run/eta.py` by the interval score on seeds of its own and prints them. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rl.run import eta

SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)  # of the steps that are done
HELD_OUT = 10_000  # the first seed that no constant was chosen on
FITTED = 60  # seeds of `--fit`
MISS = 0.1  # share of truths that may lie outside
CONSTANTS = ("_DOUBT", "_UNFORESEEN", "_NOISE", "_WANDER", "_TREND", "_FEW", "_BELOW", "_ABOVE")
Draws = np.random.Generator


def noise(draws: Draws, count: int, spread: float = 0.15) -> np.ndarray:
    """Factors with mean 1."""
    return draws.lognormal(-(spread**2) / 2, spread, count)


def steady(draws: Draws, count: int) -> np.ndarray:
    """Nothing but noise."""
    return noise(draws, count, draws.uniform(0.03, 0.3))


def growing(draws: Draws, count: int) -> np.ndarray:
    """Completions become longer: early, evenly or late."""
    way = np.linspace(0, 1, count) ** draws.choice([0.5, 1, 2])
    return (1 + draws.uniform(0.5, 3) * way) * noise(draws, count)


def shrinking(draws: Draws, count: int) -> np.ndarray:
    """Completions become shorter."""
    return (1 - draws.uniform(0.2, 0.6) * np.linspace(0, 1, count) ** draws.choice([0.5, 1])) * noise(draws, count)


def evaluated(draws: Draws, count: int) -> np.ndarray:
    """Every so many steps an evaluation takes as long as many steps."""
    steps = noise(draws, count)
    every = int(draws.integers(4, max(5, count // 4) + 1))
    steps[every - 1 :: every] += draws.uniform(2, 15)
    steps[-1] += 3
    return steps


def stalling(draws: Draws, count: int) -> np.ndarray:
    """Now and then a worker is replaced or a disk is slow."""
    steps, hit = noise(draws, count), draws.random(count) < draws.uniform(0.003, 0.03)
    steps[hit] += draws.uniform(3, 30, hit.sum())
    return steps


def warming(draws: Draws, count: int) -> np.ndarray:
    """The first steps compile and fill caches."""
    steps = noise(draws, count)
    steps[: draws.integers(1, 5)] *= draws.uniform(2, 10)
    return steps


def wandering(draws: Draws, count: int) -> np.ndarray:
    """A random walk of the level."""
    walk = np.cumsum(draws.normal(0, draws.uniform(0.1, 0.5) / np.sqrt(count), count))
    return np.exp(walk) * noise(draws, count, 0.1)


def shifting(draws: Draws, count: int) -> np.ndarray:
    """At some step everything becomes slower or faster at once."""
    steps = noise(draws, count)
    steps[draws.integers(1, count) :] *= np.exp(draws.uniform(-0.7, 0.7))
    return steps


def correlated(draws: Draws, count: int) -> np.ndarray:
    """Slow steps follow slow ones."""
    memory, shocks = draws.uniform(0.7, 0.97), draws.normal(0, draws.uniform(0.1, 0.3), count)
    level = np.zeros(count)
    for step in range(count):
        level[step] = memory * level[step - 1] * (step > 0) + np.sqrt(1 - memory**2) * shocks[step]
    return np.exp(level)


def heavy(draws: Draws, count: int) -> np.ndarray:
    """Few steps take much longer, as with one long completion."""
    return 1 + draws.pareto(draws.uniform(1.8, 3), count) * 0.3


def mixed(draws: Draws, count: int) -> np.ndarray:
    """Several of these at once."""
    level = growing(draws, count) if draws.random() < 0.5 else wandering(draws, count)
    extra = np.maximum(evaluated(draws, count) - 1, 0) + np.maximum(stalling(draws, count) - 1, 0)
    return level * correlated(draws, count) + extra / 2


def shared(draws: Draws, count: int) -> np.ndarray:
    """Another job comes and goes on the machine."""
    busy, steps = False, noise(draws, count)
    change, slower = draws.uniform(0.01, 0.1), draws.uniform(1.3, 2.5)
    for step in range(count):
        busy ^= draws.random() < change
        steps[step] *= slower if busy else 1
    return steps


def staged(draws: Draws, count: int) -> np.ndarray:
    """A curriculum: the tasks become harder in stairs."""
    stairs = int(draws.integers(2, 7))
    return (1 + draws.uniform(0.05, 0.3) * (np.arange(count) * stairs // count)) * noise(draws, count)


def waved(draws: Draws, count: int) -> np.ndarray:
    """A wave, as of a machine that becomes hot by day."""
    waves = draws.uniform(0.5, 6)
    swing = draws.uniform(0.1, 0.4) * np.sin(2 * np.pi * (waves * np.arange(count) / count + draws.random()))
    return np.exp(swing) * noise(draws, count)


Kind = Callable[[Draws, int], np.ndarray]
KINDS: tuple[Kind, ...] = (
    *(steady, growing, shrinking, evaluated, stalling, warming, wandering, shifting, correlated, heavy, mixed),
)
SURPRISES: tuple[Kind, ...] = (shared, staged, waved)


def moments(kinds: Sequence[Kind], seeds: range) -> Iterator[tuple[str, float, np.ndarray, int, float]]:
    """(kind, share of the steps, durations so far, steps left, seconds left) for every moment of every run."""
    for kind in kinds:
        for seed in seeds:
            draws = np.random.default_rng([seed, *kind.__name__.encode()])
            count = int(np.exp(draws.uniform(np.log(20), np.log(1000))))
            steps = kind(draws, count)
            for share in SHARES:
                done = max(3, round(share * count))
                if done < count:
                    yield kind.__name__, share, steps[:done], count - done, float(steps[done:].sum())


def measure(kinds: Sequence[Kind], seeds: range) -> list[tuple[str, float, bool, float, float]]:
    """(kind, share, whether the interval held the truth, high / low, error of the middle) for every moment."""
    rows = []
    for kind, share, steps, left, truth in moments(kinds, seeds):
        found = eta.remaining(steps, left)
        assert found is not None
        inside = found.low <= truth <= found.high
        rows.append((kind, share, inside, found.high / found.low, abs(np.log(found.middle / truth))))
    return rows


def fit() -> dict[str, float]:
    """The constants with the best interval score (Gneiting and Raftery 2007, eq. 43) of the logarithm of the rest."""
    from scipy.optimize import minimize

    known = list(moments(KINDS, range(FITTED)))

    def loss(logs: np.ndarray) -> float:
        for name, value in zip(CONSTANTS, np.exp(logs), strict=True):
            setattr(eta, name, float(value))
        total = 0.0
        for _, _, steps, left, truth in known:
            found = eta.remaining(steps, left)
            assert found is not None
            low, middle, high = np.log([found.low, found.middle, found.high])
            missed = max(0.0, low - np.log(truth)) + max(0.0, np.log(truth) - high)
            total += (high - low) + 2 / MISS * missed + 0.2 * abs(middle - np.log(truth))
        return total / len(known)

    start = np.log([getattr(eta, name) for name in CONSTANTS])
    best = minimize(loss, start, method="Nelder-Mead", options={"maxfev": 600})
    return {name: round(float(np.exp(value)), 3) for name, value in zip(CONSTANTS, best.x, strict=True)}


def report(rows: Sequence[tuple[str, float, bool, float, float]], column: int) -> dict[str, float]:
    """Print coverage, width and error by kind or by share; return the coverage."""
    found = {}
    for value in dict.fromkeys(row[column] for row in rows):
        own = [row for row in rows if row[column] == value]
        found[str(value)] = round(float(np.mean([row[2] for row in own])), 3)
        width, error = np.median([row[3] for row in own]), np.median([row[4] for row in own])
        print(f"{value!s:<12} {found[str(value)]:.3f} inside  high / low {width:.2f}  error of the middle {error:.3f}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 seeds of each kind")
    parser.add_argument("--seeds", type=int, default=200, help="of each kind")
    parser.add_argument("--fit", action="store_true", help="choose the constants first; takes minutes")
    options = parser.parse_args()
    if options.fit:
        print(fit())
    seeds = range(HELD_OUT, HELD_OUT + (20 if options.quick else options.seeds))
    rows, surprises = measure(KINDS, seeds), measure(SURPRISES, seeds)
    kinds, shares, unknown = report(rows, 0), report(rows, 1), report(surprises, 0)
    result = {
        "moments": len(rows) + len(surprises),
        "coverage": round(float(np.mean([row[2] for row in [*rows, *surprises]])), 3),
        "coverage_of_unknown_kinds": round(float(np.mean([row[2] for row in surprises])), 3),
        "high_to_low": round(float(np.median([row[3] for row in [*rows, *surprises]])), 2),
        "error_of_the_middle": round(float(np.median([row[4] for row in [*rows, *surprises]])), 3),
        "by_kind": kinds | unknown,
        "by_share": shares,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
