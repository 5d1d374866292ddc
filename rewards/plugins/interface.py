"""What a reward function of others may look like, and what its results become.

Native plug-ins are `(response, reference, *, task) -> float | Verdict | dict of parts`, or, for a whole group,
`(responses, reference, *, task) -> list of those`; both may be `async`. `rewards.plugins.loading` finds them,
`rewards.plugins.adapters` turns functions written for other libraries into them.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from configs.errors import UserError
from configs.text import counted, printable, with_article
from rewards.types import Task, Verdict, VerdictKind

RewardFunction = Callable[..., Any]
Run = Callable[[Coroutine[Any, Any, Any]], Any]

ALLOWED = (
    "(response: str, reference: str, *, task: Task) -> float | Verdict | dict[str, float], or for a group at once "
    "(responses: list[str], reference: str, *, task: Task) -> a list of those"
)
_CORRECT_ABOVE = 0.5


class PluginError(UserError, ValueError):
    """A plug-in cannot be loaded. The message has the value, what is allowed and the fix, and is safe to print."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, keep="\n"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A loaded reward function. `grouped`: it takes all responses to one prompt at once."""

    function: RewardFunction
    grouped: bool
    is_async: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one call of a reward gave: its value, the parts it was made of, and the verdict on the call itself."""

    value: float
    verdict: Verdict
    parts: Mapping[str, float] = field(default_factory=dict)


def native(spec: str, function: object) -> Plugin:
    """Check the signature of a native plug-in. Raises PluginError."""
    if not callable(function):
        raise PluginError(
            f"reward {spec!r}: is {with_article(type(function).__name__)}, not a function; allowed is {ALLOWED}"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin that does not tell; the call will
        return Plugin(function=function, grouped=False, is_async=False)
    try:
        signature.bind("", "", task=None)
    except TypeError as error:
        raise PluginError(f"reward {spec!r}: takes {signature}, but {error}; allowed is {ALLOWED}") from error
    grouped = next(iter(signature.parameters)) == "responses"
    return Plugin(function=function, grouped=grouped, is_async=is_async(function))


def is_async(function: object) -> bool:
    """True for coroutine functions and for objects whose call is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def call_plugin(
    plugin: Plugin, responses: Sequence[str], task: Task, *, run: Run = asyncio.run, seconds: float | None = None
) -> list[Outcome]:
    """One outcome for each response; whatever goes wrong in the plug-in becomes a verdict of kind `crash`.

    `run` runs a coroutine; `seconds` is the deadline of each awaited call.
    """
    start = time.perf_counter()
    if plugin.grouped:
        return _call_group(plugin, responses, task, run, seconds)
    if plugin.is_async:
        results = run(_gather([_one(plugin, response, task, seconds) for response in responses]))
    else:
        results = [_call(lambda text=text: plugin.function(text, task.answer, task=task)) for text in responses]
    return [to_outcome(result, start if plugin.is_async else began) for began, result in results]


def _call_group(plugin: Plugin, responses: Sequence[str], task: Task, run: Run, seconds: float | None) -> list[Outcome]:
    start, result = _call(lambda: plugin.function(list(responses), task.answer, task=task))
    if inspect.isawaitable(result):
        start, result = run(_awaited(result, seconds))
    if isinstance(result, (BaseException, Verdict)):  # it raised, or was late
        return [to_outcome(result, start)] * len(responses)
    if isinstance(result, (str, bytes, Mapping)) or not hasattr(result, "__len__") or not hasattr(result, "__iter__"):
        return [_crash(f"returned {_show(result)}: a group's reward must be a list", start)] * len(responses)
    if len(result) != len(responses):
        text = (
            f"returned {counted(len(result), 'value')} for "
            f"{counted(len(responses), 'response')}: one for each is needed"
        )
        return [_crash(text, start)] * len(responses)
    return [to_outcome(item, start) for item in result]


def _call(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    try:
        return start, function()
    except BaseException as error:  # a stranger's code may raise anything, SystemExit too
        return start, error


async def _one(plugin: Plugin, response: str, task: Task, seconds: float | None) -> tuple[float, Any]:
    start, result = _call(lambda: plugin.function(response, task.answer, task=task))
    return await _awaited(result, seconds) if inspect.isawaitable(result) else (start, result)


async def _awaited(awaitable: Any, seconds: float | None) -> tuple[float, Any]:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            return start, await awaitable
    except TimeoutError as error:
        late = seconds is not None and time.perf_counter() - start >= seconds
        verdict = Verdict(kind=VerdictKind.TIMEOUT, score=0.0, rule="plugin", detail=f"no answer within {seconds} s")
        return start, verdict if late else error
    except BaseException as error:
        return start, error


async def _gather(calls: Sequence[Coroutine[Any, Any, tuple[float, Any]]]) -> list[tuple[float, Any]]:
    return list(await asyncio.gather(*calls))


def to_outcome(result: object, start: float) -> Outcome:
    """What a function returned, or the exception that it raised, as an outcome; `start` is when it was called."""
    if isinstance(result, BaseException):
        return _crash(_describe(result), start)
    if isinstance(result, Outcome):
        return replace(result, verdict=replace(result.verdict, seconds=time.perf_counter() - start))
    if isinstance(result, Verdict):
        if not is_finite(result.score):
            return _crash(f"returned a verdict with score {_show(result.score)}: it must be finite", start)
        verdict = replace(result, seconds=result.seconds or time.perf_counter() - start)
        return Outcome(value=float(result.score), verdict=verdict)
    if isinstance(result, Mapping):
        return _from_parts(result, start)
    if not is_finite(result):
        return _crash(f"returned {_show(result)}: must be a finite float, a Verdict or a dict of finite floats", start)
    return Outcome(value=float(result), verdict=judged(float(result), start))  # type: ignore[arg-type]


def _from_parts(parts: Mapping[Any, Any], start: float) -> Outcome:
    for name, value in parts.items():
        if not isinstance(name, str) or not is_finite(value):
            return _crash(f"returned a dict with {_show(name)}: {_show(value)}: names to finite floats only", start)
    if not parts:
        return _crash("returned an empty dict: give at least one part", start)
    values = {name: float(value) for name, value in parts.items()}
    total = sum(values.values())
    if not math.isfinite(total):
        return _crash("returned a dict whose sum is not finite", start)
    return Outcome(value=total, verdict=judged(total, start), parts=values)


def judged(value: float, start: float) -> Verdict:
    """The verdict of a reward that gave a number: above one half it is `correct`."""
    kind = VerdictKind.CORRECT if value > _CORRECT_ABOVE else VerdictKind.WRONG
    return Verdict(kind=kind, score=min(1.0, max(0.0, value)), rule="plugin", seconds=time.perf_counter() - start)


def failed(kind: VerdictKind, detail: str, *, seconds: float = 0.0) -> Outcome:
    """The outcome of a call that gave no value: `timeout` or `crash`."""
    return Outcome(
        value=0.0,
        verdict=Verdict(
            kind=kind, score=0.0, rule="plugin", seconds=seconds, detail=printable(detail[:500], keep="\n\t")
        ),
    )


def _crash(detail: str, start: float) -> Outcome:
    return failed(VerdictKind.CRASH, detail, seconds=time.perf_counter() - start)


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its text is made by a stranger's code
        return type(error).__name__


def is_finite(value: object) -> bool:
    """True for finite ints, floats and bools, and for the scalars of numpy, which register as neither."""
    if isinstance(value, (str, bytes)) or value is None:
        return False
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def _show(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**30:
        return "a huge int"  # its digits cost, and past 4300 of them Python refuses
    if isinstance(value, (str, int, float, bool, type(None))):
        return f"{value!r:.60}"
    return with_article(type(value).__name__)
