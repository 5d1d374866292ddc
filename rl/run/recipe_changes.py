"""Which keys of a recipe may change when a run resumes: those that say how it runs, not what it learns."""

from __future__ import annotations

import re

from configs.load import plain
from configs.schema import RunConfig
from configs.yaml_io import flatten

MAY_CHANGE = (
    "output_dir",  # a run's folder may be moved
    "threads",
    "trackers",
    "export",
    "model.gradient_checkpointing",
    "rl.workers",
    "rl.worker_deadline",
    "rl.engine",
    "rl.engine_options",
    "rl.micro_batch_tokens",
    "rl.ranks.count",
    "rl.eval_every",
    "rl.save_every",
    "rl.steps",  # the schedule of the learning rate follows
    "instruct.save_every",
    "long_cot.save_every",
)


def differences(found: RunConfig, wanted: RunConfig) -> dict[str, tuple[object, object]]:
    """The keys whose values differ: (in the run's folder, now)."""
    there, now = flatten(plain(found)), flatten(plain(wanted))
    return {
        key: (there.get(key), now.get(key))
        for key in sorted(there.keys() | now.keys())
        if there.get(key) != now.get(key)
    }


def may_change(key: str) -> bool:
    """Whether a run may resume with another value of this key; an item of a list counts as its list."""
    return re.sub(r"(\.\d+)+$", "", key) in MAY_CHANGE or key.startswith("rl.engine_options.")
