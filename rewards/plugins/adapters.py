"""Reward functions written for other libraries, used unchanged: `trl:`, `trl_text:` or `verl:` before the name.

| name | the function | completions are |
|---|---|---|
| `trl` | `(completions, **columns) -> list`, of TRL and open-r1; or a list or dict of such functions | conversations |
| `trl_text` | the same | texts |
| `verl` | `compute_score(data_source, solution_str, ground_truth, extra_info=None)`, or its batched form | texts |

Their functions look for `<think>` and `</think>`, so Kimi's think marks are rewritten to these.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from configs.text import counted, with_article
from rewards.extraction import THINK_CLOSE, THINK_OPEN
from rewards.plugins.interface import Outcome, Plugin, PluginError, RewardFunction, is_async, is_finite, judged
from rewards.types import Task, Verdict, VerdictKind

_REFERENCES = ("solution", "answer", "ground_truth", "label", "target", "reference")  # what data sets call the column
_SKIPPED = Verdict(kind=VerdictKind.BAD_REFERENCE, score=0.0, rule="plugin", detail="the function returned None")


def _trl(spec: str, found: object) -> Plugin:
    return _trl_plugin(spec, found, conversational=True)


def _trl_text(spec: str, found: object) -> Plugin:
    return _trl_plugin(spec, found, conversational=False)


def _verl(spec: str, found: object) -> Plugin:
    """`compute_score`, one response or (with the parameter `solution_strs`) all of a group at a time."""
    function, names = _function(spec, found)
    batched = "solution_strs" in names
    keys = ("data_sources", "solution_strs", "ground_truths", "extra_infos") if batched else _VERL
    needed = _needed(function, exclude=keys)
    if needed or not (set(keys[1:3]) <= set(names) or "" in names):
        raise PluginError(
            f"reward {spec!r}: takes {inspect.signature(function)}; verl's is ({', '.join(_VERL)}=None), or "
            "(data_sources, solution_strs, ground_truths, extra_infos=None)"
        )

    def score(responses: list[str], reference: str, *, task: Task) -> Any:
        rows = [(task.source, _plain_marks(text), reference, _extra(task)) for text in responses]
        if batched:
            columns = [list(column) for column in zip(*rows, strict=True)]
            return _results(function(**_only(dict(zip(keys, columns, strict=True)), names)))
        return [_verl_result(function(**_only(dict(zip(keys, row, strict=True)), names))) for row in rows]

    async def score_async(responses: list[str], reference: str, *, task: Task) -> Any:
        results = []
        for text in responses:
            row = (task.source, _plain_marks(text), reference, _extra(task))
            results.append(_verl_result(await function(**_only(dict(zip(keys, row, strict=True)), names))))
        return results

    asynchronous = is_async(function)
    return Plugin(function=score_async if asynchronous else score, grouped=True, is_async=asynchronous)


_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")

ADAPTERS: Mapping[str, Callable[[str, object], Plugin]] = {"trl": _trl, "trl_text": _trl_text, "verl": _verl}
"""Name before the colon in a recipe to what wraps the function found there."""


def _trl_plugin(spec: str, found: object, *, conversational: bool) -> Plugin:
    several = isinstance(found, (list, tuple, Mapping))
    members = found.items() if isinstance(found, Mapping) else ((_name(f), f) for f in _listed(found))
    functions = {str(name): _function(spec, member) for name, member in members}
    if not functions:
        raise PluginError(f"reward {spec!r}: the list of functions is empty")
    if several and isinstance(found, Sequence) and len(functions) != len(found):
        raise PluginError(f"reward {spec!r}: functions of the list have one name; give a dict from name to function")
    known = _columns(["x"], "", Task(id="", source="", question="", answer=""), conversational)
    for function, _ in functions.values():
        needed = _needed(function, exclude=known)
        if needed:
            raise PluginError(
                f"reward {spec!r}: needs {', '.join(needed)}; rewards here see texts and tasks, which TRL's functions "
                f"get as {', '.join(known)}"
            )

    def gather(lists: Mapping[str, Any], responses: Sequence[str]) -> list[Any]:
        if not several:
            (values,) = lists.values()
            return [_SKIPPED if value is None else value for value in values]
        for name, values in lists.items():
            if len(values) != len(responses):
                raise ValueError(
                    f"{name} returned {counted(len(values), 'value')} for {counted(len(responses), 'response')}"
                )
        rows = [{name: values[i] for name, values in lists.items()} for i in range(len(responses))]
        rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
        return [row or _SKIPPED for row in rows]

    def score(responses: list[str], reference: str, *, task: Task) -> Any:
        columns = _columns(responses, reference, task, conversational)
        return gather({name: f(**_only(columns, names)) for name, (f, names) in functions.items()}, responses)

    async def score_async(responses: list[str], reference: str, *, task: Task) -> Any:
        columns = _columns(responses, reference, task, conversational)
        lists = {name: f(**_only(columns, names)) for name, (f, names) in functions.items()}
        return gather(
            {name: await found if inspect.isawaitable(found) else found for name, found in lists.items()}, responses
        )

    asynchronous = any(is_async(function) for function, _ in functions.values())
    return Plugin(function=score_async if asynchronous else score, grouped=True, is_async=asynchronous)


def _columns(responses: Sequence[str], reference: str, task: Task, conversational: bool) -> dict[str, list[Any]]:
    """What TRL's trainer passes: the batch as lists, one for each column of the data set."""
    texts = [_plain_marks(text) for text in responses]
    row = {
        **dict.fromkeys(_REFERENCES, reference),
        "problem": task.question,
        "question": task.question,
        "source": task.source,
        "id": task.id,
        "choices": list(task.choices),
        "images": list(task.images),
    }
    prompt = [{"role": "user", "content": task.question}] if conversational else task.question
    completions = [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts
    columns = {name: [value] * len(texts) for name, value in row.items()}
    return {"prompts": [prompt] * len(texts), "completions": completions, **columns}


def _extra(task: Task) -> dict[str, Any]:
    return {"index": task.id, "question": task.question, "answer": task.answer, "choices": list(task.choices)}


def _results(values: Any) -> Any:
    return [_verl_result(value) for value in values] if isinstance(values, (list, tuple)) else values


def _verl_result(result: Any) -> Any:
    """The `score` of a dict is the value; its other numbers are kept as parts."""
    if result is None:
        return _SKIPPED
    if not isinstance(result, Mapping):
        return result[0] if isinstance(result, tuple) and result else result
    if not is_finite(result.get("score")):
        raise ValueError(f"compute_score returned a dict whose 'score' is {str(result.get('score'))[:60]!r}")
    value = float(result["score"])
    parts = {str(name): float(part) for name, part in result.items() if name != "score" and is_finite(part)}
    return Outcome(value=value, verdict=judged(value, 0.0), parts=parts)


def _function(spec: str, found: object) -> tuple[RewardFunction, tuple[str, ...]]:
    """The function and the names it takes; "" among them where it takes any (`**kwargs`)."""
    if not callable(found):
        raise PluginError(f"reward {spec!r}: is {with_article(type(found).__name__)}, not a function")
    parameters = inspect.signature(found).parameters.values()
    return found, tuple("" if p.kind is p.VAR_KEYWORD else p.name for p in parameters if p.kind is not p.VAR_POSITIONAL)


def _needed(function: RewardFunction, *, exclude: Sequence[str] | Mapping[str, Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    wild = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in wild and p.name not in exclude]


def _only(columns: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return dict(columns) if "" in names else {name: columns[name] for name in names if name in columns}


def _listed(found: object) -> Sequence[object]:
    return found if isinstance(found, (list, tuple)) else (found,)


def _name(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _plain_marks(text: str) -> str:
    return text.replace(THINK_OPEN, "<think>").replace(THINK_CLOSE, "</think>")
