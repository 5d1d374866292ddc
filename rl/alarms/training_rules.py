"""Rules on the policy and its training: entropy, length, signal, failures, numbers, distance, age."""

from __future__ import annotations

import math

from configs.text import counted
from rl.alarms.finding import AlarmFinding, percent
from rl.alarms.history import History


def entropy_collapses(history: History) -> AlarmFinding | None:
    """The policy has become sure of its tokens while it is still often wrong.

    A fifth of the entropy of the first steps: where it is used up the reward stands still (arXiv:2505.22617). A policy
    that is right may be sure: the quickstart ends with a tenth of its entropy, and 93 % of its rollouts correct.
    """
    entropy, right = history.trend("entropy"), history.now("accuracy")
    if entropy is None or not right < 0.7:
        return None
    first = history.mean_at("entropy", 0)
    text = f"the entropy is {entropy.now:.3g} nats a token, {first:.3g} at first; {percent(right)} are correct"
    return AlarmFinding(level=0.2 * first / max(entropy.now, 1e-9), evidence=text)


def length_explodes(history: History) -> AlarmFinding | None:
    """Many completions hit the limit of tokens, or more and more; or they doubled and no more of them are correct.

    Length that pays is no alarm: thinking grows with the accuracy (k1.5, DeepSeek-R1).
    """
    found = []
    cut = history.trend("truncated_share")
    if cut is not None and cut.now >= 0.1:
        text = f"{percent(cut.now)} of the completions are cut off, {percent(cut.low)} at best"
        found.append(AlarmFinding(level=max((cut.now - cut.low) / 0.1, cut.now / 0.3), evidence=text))
    tokens = history.trend("tokens_mean")
    if tokens is not None:
        before, now = history.mean_at("accuracy", tokens.low_at), history.now("accuracy")
        if now <= before + 0.02:
            text = (
                f"a completion has {counted(tokens.now, 'token')}, {tokens.low:.0f} once; "
                f"{percent(now)} are correct, {percent(before)} then"
            )
            found.append(AlarmFinding(level=tokens.now / (2 * max(tokens.low, 1.0)), evidence=text))
    return max(found, key=lambda finding: finding.level, default=None)


def no_signal(history: History) -> AlarmFinding | None:
    """Fewer than one group in ten has rewards that differ: most of the rollouts train nothing.

    Where nine in ten are correct the tasks are solved, which is no fault. Healthy runs of ours keep 13 % and more.
    """
    share, right = history.now("signal_share"), history.now("accuracy")
    if math.isnan(share) or right >= 0.9:
        return None
    text = f"{percent(share)} of the groups have rewards that differ; {percent(right)} of the rollouts are correct"
    return AlarmFinding(level=0.1 / max(share, 1e-3), evidence=text)


def verifiers_fail(history: History) -> AlarmFinding | None:
    """More than one verification in a hundred fails: the policy is trained on what is left."""
    failed = history.total("verifier_failures")
    share = failed / max(1.0, failed + history.total("rollouts"))
    text = f"{counted(failed, 'verification')} failed in the last steps, {100 * share:.1f} % of all"
    return AlarmFinding(level=share / 0.01 if failed >= 2 else 0.0, evidence=text)


def not_finite(history: History) -> AlarmFinding | None:
    """The loss or the gradient is not finite, or an update was skipped."""
    broken = [name for name in ("loss", "grad_norm") if name in history.rows[-1] and not _finite(history, name)]
    skipped = history.newest("skipped_updates")
    if not broken and not skipped > 0:
        return AlarmFinding(level=0.0, evidence="all numbers are finite")
    text = f"{' and '.join(broken)} not finite" if broken else f"{percent(skipped)} of the step's updates were skipped"
    return AlarmFinding(level=1.0, evidence=text)


def engine_apart(history: History) -> AlarmFinding | None:
    """The learner gives the sampled tokens other probabilities than the engine did.

    In float32 the distance of one update is 1e-9 in our runs, in bfloat16 about 1e-3; runs end near 0.1
    (arXiv:2510.26788 shows such collapses).
    """
    distance, outside = history.now("approx_kl"), history.now("correction_outside")
    if math.isnan(distance) and math.isnan(outside):
        return None
    text = f"the policy is {distance:.3g} nats a token (k3) from the one that sampled"
    if outside > 0:
        text += f"; {percent(outside)} of the importance weights are outside their limits"
    return AlarmFinding(level=max(_or_0(distance) / 0.1, _or_0(outside) / 0.1), evidence=text)


def clipped(history: History) -> AlarmFinding | None:
    """The clip takes the gradient of three tokens in ten: most of what was sampled in these steps trains nothing."""
    share = history.now("clip_fraction")
    if math.isnan(share):
        return None
    return AlarmFinding(level=share / 0.3, evidence=f"the clip removed the gradient of {percent(share)} of the tokens")


def workers_fail(history: History) -> AlarmFinding | None:
    """Workers hang again and again, or task after task is put in quarantine: three times in five steps.

    One worker that is replaced changes nothing, and no run should stop for it.
    """
    hangs, tasks = history.gain("workers/hangs"), history.gain("workers/quarantined")
    text = f"newly in the last steps: {counted(int(hangs), 'worker')} without progress, "
    text += f"{counted(int(tasks), 'task')} in quarantine"
    return AlarmFinding(level=max(hangs, tasks) / 3, evidence=text)


def stale(history: History) -> AlarmFinding | None:
    """Much of what was sampled is too old to train on, or what is trained on is eight versions behind.

    AReaL (arXiv:2505.24298) keeps its accuracy up to about eight versions, with an objective that is made for it.
    """
    dropped = _or_0(history.now("discarded/stale")) + _or_0(history.now("discarded/aborted"))
    masked, lag = _or_0(history.now("masked_share")), _or_0(history.now("staleness_mean"))
    parts = (
        (dropped / 0.1, f"{percent(dropped)} of the sampled tokens were dropped as too old"),
        (masked / 0.5, f"{percent(masked)} of the tokens in the samples are not trained on"),
        (lag / 8, f"completions are {lag:.1f} versions behind"),
    )
    level, text = max(parts)
    return AlarmFinding(level=level, evidence=text)


def _finite(history: History, name: str) -> bool:
    return math.isfinite(history.newest(name))


def _or_0(value: float) -> float:
    return 0.0 if math.isnan(value) else value
