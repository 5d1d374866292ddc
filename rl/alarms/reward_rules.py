"""Rules on what is rewarded: whether the reward still measures the answers, on all of the data."""

from __future__ import annotations

from collections.abc import Iterator

from configs.text import counted
from rl.alarms.finding import AlarmFinding, percent
from rl.alarms.history import CERTAIN, WINDOW, History, certainly_more, standard_error


def rewarded_but_wrong(history: History) -> AlarmFinding | None:
    """The task's own verifier calls more and more of the rewarded rollouts wrong, and the reward has not fallen.

    It sees nothing where that verifier is the only reward. The limit is 15 points above the best window of the stage:
    an honest gap between a reward and a verifier keeps its size, and a hack that pays spreads (arXiv:2210.10760).
    """
    wrong = history.share("rewarded_wrong", "rewarded")
    if wrong is None:
        return None
    before, now = history.mean_at("reward", wrong.low_at), history.now("reward")
    if now < before - 0.02:
        return None
    text = (
        f"{percent(wrong.now)} of the rewarded rollouts are wrong by the verifier of their tasks, {percent(wrong.low)} "
        f"at best; the reward was {before:.2f} then and is {now:.2f}"
    )
    return AlarmFinding(level=wrong.rise / 0.15, evidence=text)


def held_out_falls(history: History) -> AlarmFinding | None:
    """The validation accuracy is certainly below its best, while the reward in training is above what it was then."""
    if len(history.checks) < 2 or len(history.rows) < WINDOW:
        return None
    newest = history.checks[-1]
    best = max(history.checks[:-1], key=lambda check: check.accuracy)
    error = standard_error(best.accuracy, best.tasks, newest.accuracy, newest.tasks)
    at = sum(step <= best.step for step in history.steps) - WINDOW
    before, now = history.mean_at("reward", max(0, at)), history.now("reward")
    if not now > before:
        return None
    text = (
        f"the validation accuracy was {best.accuracy:.2f} after step {best.step} and {newest.accuracy:.2f} after step "
        f"{newest.step}; the reward was {before:.2f} then and is {now:.2f}"
    )
    # One step of evaluation against the best of a few: three standard errors.
    return AlarmFinding(level=(best.accuracy - newest.accuracy) / max(0.03, 0.75 * CERTAIN * error), evidence=text)


def format_without_answer(history: History) -> AlarmFinding | None:
    """Many more rollouts have the format than once did, and fewer are correct, or no more for a while.

    A policy learns a format sooner than an answer: the answers get twenty steps to follow.
    """
    name = "reward/format" if "reward/format" in history.rows[-1] else "thinking_share"
    form, right = history.trend(name), history.trend("accuracy")
    if form is None or right is None:
        return None
    before = history.mean_at("accuracy", form.low_at)
    waited = len(history.rows) - WINDOW - form.low_at >= 20
    if form.now < 0.8 or right.now >= 0.5 or right.now > before + (0.02 if waited else -0.1):
        return None
    text = (
        f"{percent(form.now)} of the rollouts have the format, {percent(form.low)} once did; "
        f"{percent(right.now)} are correct, {percent(before)} then"
    )
    return AlarmFinding(level=(form.now - form.low) / 0.2, evidence=text)


def one_answer(history: History) -> AlarmFinding | None:
    """One answer is given far more often than it is right, whatever the question. No verifier is needed for it."""
    excess, count = history.trend("favourite_excess"), _effective(history.total("groups"))
    if excess is None or not certainly_more(excess.now, count, max(0.0, excess.low), count):
        return None
    text = (
        f"one answer is {percent(excess.now)} of all answers beyond its share of the references, "
        f"{percent(excess.low)} at best"
    )
    return AlarmFinding(level=min(excess.now / 0.3, (excess.now - excess.low) / 0.2), evidence=text)


def source_starves(history: History) -> AlarmFinding | None:
    """One source gives no signal though it is far from solved, or gets worse while all together do not."""
    found = [*_without_signal(history), *_forgotten(history)]
    return max(found, key=lambda finding: finding.level, default=None)


def _without_signal(history: History) -> Iterator[AlarmFinding]:
    overall = history.now("signal_share")
    for source in _sources(history):
        groups, signal = history.total(f"groups/{source}"), history.total(f"signal/{source}")
        right = history.now(f"accuracy/{source}")
        if groups >= 4 * WINDOW and right < 0.5 and overall >= 0.2:
            text = (
                f"{source}: {signal:.0f} of {counted(groups, 'group')} had a signal, {percent(overall)} of all; "
                f"{percent(right)} are correct"
            )
            yield AlarmFinding(level=0.05 / max(signal / groups, 0.01), evidence=text, source=source)


def _forgotten(history: History) -> Iterator[AlarmFinding]:
    every = history.trend("accuracy")
    for source in _sources(history):
        own = history.trend(f"accuracy/{source}")
        if own is None or every is None:
            continue
        before = history.mean_at("accuracy", own.high_at)
        count = _effective(history.total(f"groups/{source}"))
        if every.now >= before and certainly_more(own.high, count, own.now, count):
            text = (
                f"{source}: {percent(own.now)} are correct, {percent(own.high)} at best; of all sources "
                f"{percent(every.now)}, {percent(before)} then"
            )
            yield AlarmFinding(level=(own.high - own.now) / 0.15, evidence=text, source=source)


def _effective(groups: float) -> float:
    """Independent samples in so many groups: those of one group are alike, and worth about two."""
    return 2 * groups


def _sources(history: History) -> list[str]:
    return sorted(name.removeprefix("groups/") for name in history.rows[-1] if name.startswith("groups/"))
