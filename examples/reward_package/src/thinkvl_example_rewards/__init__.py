"""Two rewards: partial credit for a number with some digits right, and a bonus for the shortest right answer."""

from __future__ import annotations

from rewards import Task
from rewards.extraction import extract_answer

LONGEST = 40  # characters of an answer that is looked at


def digit_distance(response: str, reference: str, *, task: Task) -> dict[str, float]:
    """Two parts in [0, 0.5]: does the answer have as many digits as the reference, and how many of them agree."""
    answer = (extract_answer(response).answer or "").strip()
    if not answer or len(answer) > LONGEST:
        return {"length": 0.0, "digits": 0.0}
    same = sum(a == b for a, b in zip(answer, reference, strict=False))
    return {
        "length": 0.5 * (len(answer) == len(reference)),
        "digits": 0.5 * same / max(len(answer), len(reference)),
    }


def shortest_right(responses: list[str], reference: str, *, task: Task) -> list[float]:
    """1 for the shortest responses of a group whose answer is the reference, else 0. It sees all of a prompt's at once.

    The parameter's name, `responses`, is what makes it a reward of groups.
    """
    right = [extract_answer(response).answer == reference for response in responses]
    lengths = [len(response) for response, ok in zip(responses, right, strict=True) if ok]
    return [float(ok and len(response) == min(lengths)) for response, ok in zip(responses, right, strict=True)]
