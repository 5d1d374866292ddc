"""What the worker processes of a plug-in run: load it once, then call it. `rewards.plugins.runner` is the other end."""

from __future__ import annotations

import asyncio
import importlib
from base64 import b64decode, b64encode
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewards.plugins.interface import Outcome, Plugin, PluginError, call_plugin, is_finite
from rewards.plugins.loading import load_plugin
from rewards.types import Task, Verdict, VerdictKind

_loaded: list[Plugin] = []
_runner = asyncio.Runner()  # one loop for all requests: clients of web services stay bound to it


def open(options: dict[str, Any]) -> None:
    """Load the plug-in that `options` names. Raises PluginError."""
    for name in options["imports"]:
        try:
            importlib.import_module(name)
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(
                f"reward {options['spec']!r}: importing {name!r}, which its `imports` name, failed: {reason}"
            ) from error
    _loaded[:] = [load_plugin(options["spec"], base=Path(options["base"]), known=options["known"])]


def answer(request: dict[str, Any]) -> Any:
    """Outcomes for the responses to one task; without responses, what the plug-in is like."""
    (plugin,) = _loaded
    if "responses" not in request:
        return {"grouped": plugin.grouped, "is_async": plugin.is_async}
    outcomes = call_plugin(
        plugin, request["responses"], task_from_json(request["task"]), run=_runner.run, seconds=request["seconds"]
    )
    return [outcome_to_json(outcome) for outcome in outcomes]


def task_to_json(task: Task) -> dict[str, Any]:
    """JSON values of a task; images as base64."""
    fields = {name: getattr(task, name) for name in Task.__dataclass_fields__}
    return {**fields, "images": [b64encode(image).decode("ascii") for image in task.images]}


def task_from_json(fields: dict[str, Any]) -> Task:
    """The inverse of `task_to_json`."""
    images = tuple(b64decode(image) for image in fields["images"])
    return Task(**{**fields, "images": images, "choices": tuple(fields["choices"])})


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """JSON values of an outcome."""
    return {"value": outcome.value, "parts": dict(outcome.parts), "verdict": asdict(outcome.verdict)}


def outcome_from_json(fields: Any) -> Outcome:
    """The inverse of `outcome_to_json`. Raises ValueError, TypeError or KeyError on anything else."""
    verdict = fields["verdict"]
    parts = {str(name): float(value) for name, value in fields["parts"].items()}
    if not all(map(is_finite, (fields["value"], verdict["score"], *parts.values()))):
        raise ValueError("a value is not finite")
    return Outcome(
        value=float(fields["value"]),
        parts=parts,
        verdict=Verdict(**{**verdict, "kind": VerdictKind(verdict["kind"])}),
    )
