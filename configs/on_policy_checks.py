"""What has no effect in a run that is exactly on-policy: one update a step, measured from the policy at its start.

The policy of the only update is its own reference, so every log-ratio is 0: a square of it (Kimi k1.5's penalty, k2)
and k3 have no gradient, and that of k1 is noise with a mean of 0.
"""

from __future__ import annotations

from configs.algorithms import LossConfig
from configs.rules import check

_REMEDY = "epochs or minibatches above 1, or loss.reference frozen or ema"


def check_single_update(loss: LossConfig, *, updates: int) -> None:
    """Raise a ValueError for a key of `rl.loss` that has no effect with so many `updates` in a step."""
    if updates > 1 or loss.resolved().reference != "iteration":
        return
    check(
        loss.resolved().kl is None,
        "loss.reference",
        loss.reference,
        "frozen or ema with one update a step: the KL is measured from the policy of that update, so its gradient is 0 "
        "(k1: noise); or give epochs or minibatches above 1",
    )
    check(
        loss.tau == 0.1, "loss.tau", loss.tau, f"left at 0.1 with one update a step: it has no effect without {_REMEDY}"
    )


def single_update_note(loss: LossConfig, *, updates: int) -> str | None:
    """A line for the user of a recipe whose `kimi_k15` does not read `tau`; None for any other.

    Where the whole loss is the default there is nothing that its user chose, and so nothing to say.
    """
    if loss == LossConfig() or updates > 1 or loss.algorithm != "kimi_k15" or loss.resolved().reference != "iteration":
        return None
    return (
        "rl.loss: kimi_k15 with one update a step has a log-ratio of 0, so tau and its penalty have no effect, and "
        f"nothing but the learning rate holds the policy back. To use the penalty, set rl.{_REMEDY}"
    )
