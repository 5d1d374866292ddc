"""How a verifier came to its verdict, in plain sentences: where the answer was, what it was, how it compared."""

from __future__ import annotations

from typing import Any

EXTRACTION = {
    "box": "the last box",
    "tag": "the last answer tag",
    "anchor": "the phrase that announces the answer",
    "json": "the field `answer` of a JSON object",
    "line": "the last line that is not empty",
    "text": "the whole text after the thinking",
    "fence": "the last code fence",
}
WITHOUT_ANSWER = {
    "open-thinking": "The think block was never closed, so nothing after it counts.",
    "empty": "There is no text after the thinking.",
    "empty-box": "The last box is empty.",
    "empty-tag": "The last answer tag is empty.",
    "denied-box": "The words beside the last box deny it.",
    "refused": "The answer exceeds a limit, such as its length or the size of a power.",
    "hedge": "The answer names several values and commits to none.",
    "question": "The answer is a question.",
    "no-option": "The text names none of the options.",
    "options-copied": "The last line repeats the options.",
    "several": "The text holds several answers that differ.",
}
COMPARISON = {
    "string": "as texts",
    "exact-rational": "as exact fractions",
    "values": "part by part, by exact values",
    "algebra": "by computer algebra",
    "words": "as words",
    "time": "as clock times",
    "base": "as numbers in a base",
    "decimal-comma": "as decimal numbers with a comma",
    "letter": "by the option's letter",
    "text": "by the option's text",
    "name": "by the option's name",
    "number": "by the option's number",
    "value": "by the option's value",
    "option-text": "by the option's text inside the sentence",
    "edit-distance": "by edit distance",
    "iou": "by the overlap of the boxes",
    "point": "by whether the point lies inside",
    "judge": "by the judge",
}
NOT_COMPARABLE = {
    "unit": "Its unit does not fit that of the reference, or one of the two has none.",
    "unparsed": "It cannot be read as mathematics.",
    "restated": "It only repeats the question's formula.",
    "unevaluated": "It is a formula that was not worked out.",
    "negated": "The words around it negate it.",
    "prose": "It is prose.",
}
_OUTCOME = {"correct": "They are equal.", "wrong": "They differ."}
_FAILED = {
    "bad_reference": "The reference answer cannot be used, so this rollout left its group.",
    "timeout": "The verifier reached its time limit, so this rollout left its group.",
    "crash": "The verifier failed, so this rollout left its group.",
}


def verdict_steps(row: dict[str, Any], thinking: str | None) -> list[str]:
    """The steps from a response to its verdict, a sentence each, from a row of the rollout log.

    `thinking` is `closed`, `open`, or None for a response without a think mark.
    """
    rule, kind = row["rule"] or "", row["verdict"]
    first, _, last = rule.partition("/")
    lines = []
    if thinking == "closed":
        lines.append("Thinking: one block, closed; only the text after it counts.")
    elif thinking is None:
        lines.append("Thinking: no think mark; the whole text counts.")
    if kind in _FAILED:
        return [*lines, _FAILED[kind], *_detail(row), *_reward(row)]
    where = EXTRACTION.get(first)
    if row["extracted"] is not None and where is not None:
        lines.append(f"Extracted from {where} (rule {first}).")
    why = WITHOUT_ANSWER.get(last or first)
    if kind == "no_answer":
        lines.append(f"No answer: {why or 'the verifier found none.'} (rule {rule})")
    elif last in NOT_COMPARABLE:
        lines.append(f"{NOT_COMPARABLE[last]} (rule {last})")
    elif last in COMPARISON or first in COMPARISON:
        how = COMPARISON.get(last) or COMPARISON[first]
        lines.append(f"Compared with the reference {how} (rule {last or first}). {_OUTCOME.get(kind, '')}".strip())
    else:
        lines.append(f"Compared by rule {rule or 'none named'}. {_OUTCOME.get(kind, '')}".strip())
    return [*lines, *_detail(row), *_reward(row)]


def _detail(row: dict[str, Any]) -> list[str]:
    return [f"The verifier says: {row['detail']}"] if row["detail"] else []


def _reward(row: dict[str, Any]) -> list[str]:
    """The reward's parts, what shaping made of it, and what became of the rollout."""
    failed = [f"{name} failed ({kind})" for name, kind in row["failures"] or ()]
    parts = [f"{name} {value:.4g}" for name, value in row["parts"] or ()]
    lines = [f"Reward terms: {', '.join([*parts, *failed])}."] if parts or failed else []
    if row["reward"] is None:
        lines.append("No reward: it is never counted as zero.")
    else:
        shaped = row["shaped_reward"]
        changed = shaped is not None and abs(shaped - row["reward"]) > 1e-9
        lines.append(f"Reward {row['reward']:.4g}{f', shaped to {shaped:.4g}' if changed else ''}.")
    if row["advantage"] is None:
        lines.append("Not trained on: its group had no signal, or it was left out.")
    return lines
