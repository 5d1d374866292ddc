"""`thinkvl check-reward`: tests that a reward function keeps the interface, and prints a line for each check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.text import Text

from configs.rewards import RewardConfig
from configs.text import counted, shorten
from rewards.plugins.check_plugin import Check, Result, check_reward
from rl.run.console import PlainConsole

_STYLES = {Result.OK: "green", Result.NOTE: "yellow", Result.FAILED: "bold red"}


def check_reward_command(spec: str, config: RewardConfig, *, console: PlainConsole) -> int:
    """Run the checks and print each result; return 1 if one failed, else 0. Raises PluginError."""
    counts: Counter[Result] = Counter()
    for check in check_reward(spec, config, base=Path.cwd()):
        counts[check.result] += 1
        console.print(_line(check))
    failed = counts[Result.FAILED]
    console.print(
        f"{spec}: {failed} of {counted(counts.total(), 'check')} failed" if failed else f"{spec}: can be used",
        markup=False,
    )
    return int(failed > 0)


def _line(check: Check) -> Text:
    name = f"{check.name:<34}"
    return Text.assemble((f"{check.result.value:<7}", _STYLES[check.result]), name, shorten(check.detail))
