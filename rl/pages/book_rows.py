"""Rows of the rollout log as the book's data: an index of what lists and filters show, and chunks with the tokens.

The index is read when the page opens, a chunk when one of its groups is shown or searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from configs.text import counted, without_secrets
from rewards.extraction import split_thinking
from rl.pages.token_pieces import TokenPieces
from rl.pages.verdict_steps import verdict_steps

CHUNK_TOKENS = 60_000  # of a chunk, about; a phone reads one in some 20 ms
LONGEST_QUESTION = 20_000  # characters that are shown of a question; of a response all its tokens are
LONGEST_TEXT = 200_000  # characters that are shown of a response without tokens
_INDEX_COLUMNS = ("group", "sample", "verdict", "reward", "advantage", "tokens", "finish", "extracted", "first", "last")


class BookRows:
    """Collects rows, step by step; `index` and `chunks` are complete once every row was added."""

    def __init__(self, pieces: TokenPieces | None) -> None:
        self._pieces = pieces
        self.groups: list[dict[str, Any]] = []
        self.columns: dict[str, list[Any]] = {name: [] for name in _INDEX_COLUMNS}
        self.chunks: list[dict[str, Any]] = []
        self.images: dict[str, int] = {}  # name in the log -> number in the book
        self.uncoloured = 0  # rollouts whose tokens could not be told apart
        self._words: dict[str, int] = {}
        self._tokens = 0

    def add_group(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add all rollouts of one prompt in one step."""
        if not self.chunks or self._tokens > CHUNK_TOKENS:
            self.chunks.append({"words": [], "special": [], "rollouts": []})
            self._words, self._tokens = {}, 0
        first = rows[0]
        for name in first["images"]:
            self.images.setdefault(name, len(self.images))
        self.groups.append(
            {
                "step": first["step"],
                "place": first["group"],
                "task": first["task"],
                "source": first["source"],
                "question": shown(first["question"], LONGEST_QUESTION),
                "answer": shown(first["answer"], LONGEST_QUESTION),
                "choices": [shown(choice, LONGEST_QUESTION) for choice in first["choices"]],
                "verifier": first["verifier"],
                "difficulty": _rounded(first["difficulty"]),
                "images": [self.images[name] for name in first["images"]],
                "chunk": len(self.chunks) - 1,
                "at": len(self.chunks[-1]["rollouts"]),
                "start": len(self.columns["group"]),
                "size": len(rows),
            }
        )
        for row in rows:
            self._add(row)

    def _add(self, row: dict[str, Any]) -> None:
        versions = [part["version"] for part in row["segments"] or ()]
        values = {
            "group": len(self.groups) - 1,
            "sample": row["sample"],
            "verdict": row["verdict"],
            "reward": _rounded(row["shaped_reward"] if row["shaped_reward"] is not None else row["reward"]),
            "advantage": _rounded(row["advantage"]),
            "tokens": len(row["token_ids"] or ()),
            "finish": row["finish_reason"],
            "extracted": None if row["extracted"] is None else shown(row["extracted"], 500),
            "first": min(versions, default=None),
            "last": max(versions, default=None),
        }
        for name, column in self.columns.items():
            column.append(values[name])
        self.chunks[-1]["rollouts"].append(self._details(row))
        self._tokens += values["tokens"]

    def _details(self, row: dict[str, Any]) -> dict[str, Any]:
        """A rollout in its chunk: tokens, their numbers, where the thinking ends, and the verifier's steps."""
        ids, text = row["token_ids"] or [], row["text"]
        thought = split_thinking(text)
        answer_at = len(text) - len(thought.answer_text)  # characters
        pieces = self._pieces.split(ids, text) if self._pieces is not None else None
        details: dict[str, Any] = {"plain": pieces is None}
        if pieces is None or self._pieces is None:
            self.uncoloured += 1
            pieces = [shown(text[:answer_at], LONGEST_TEXT), shown(text[answer_at:], LONGEST_TEXT)]
            details["answer"], details["cut"] = 1, 0
        else:
            special = [token in self._pieces.special for token in ids]
            details["answer"], details["cut"] = _token_at(pieces, special, answer_at)
            details |= token_numbers(row)
        marked = self._pieces.special.values() if self._pieces is not None else ()
        details["tokens"] = [self._word(piece, piece in marked) for piece in pieces]
        closed = None if thought.thought is None else "closed" if thought.closed else "open"
        details["steps"] = [shown(line, 2_000) for line in verdict_steps(row, closed)]
        details["thinks"] = thought.thought is not None
        return details

    def _word(self, piece: str, special: bool) -> int:
        """The number of a piece in the chunk's list of words."""
        if piece not in self._words:
            self._words[piece] = len(self._words)
            chunk = self.chunks[-1]
            chunk["words"].append(piece)
            if special:
                chunk["special"].append(self._words[piece])
        return self._words[piece]


def token_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers of each token as integers: log-probs in hundredths, log-ratios and advantages in thousandths.

    A column that the log does not have is left out.
    """
    numbers: dict[str, Any] = {
        "id": list(row["token_ids"]),
        "surprise": _scaled(row["policy_logprobs"], -100),
        "versions": [[part["start"], part["stop"], part["version"]] for part in row["segments"] or ()],
    }
    if row["token_advantages"] is not None:
        numbers["advantages"] = _scaled(row["token_advantages"], 1000)
    if row["learner_logprobs"] is not None and row["policy_logprobs"] is not None:
        pairs = zip(row["learner_logprobs"], row["policy_logprobs"], strict=True)
        numbers["ratio"] = _scaled([learner - engine for learner, engine in pairs], 1000)
    if row["trainable"] is not None and not all(row["trainable"]):
        numbers["masked"] = [at for at, trains in enumerate(row["trainable"]) if not trains]
    return numbers


def shown(text: str, limit: int) -> str:
    """`text` without secrets in addresses; of a longer one its beginning and its end."""
    if len(text) > limit:
        text = (
            f"{text[: limit // 2]}\n... {counted(len(text) - limit, 'character')} left out ...\n{text[-limit // 2 :]}"
        )
    return without_secrets(text)


def _scaled(values: Iterable[float] | None, scale: float) -> list[int] | None:
    """`values` times `scale` as integers; numbers that are not finite become 0 or the largest allowed."""
    if values is None:
        return None
    return [round(max(-1e6, min(1e6, value * scale))) if value == value else 0 for value in values]


def _token_at(pieces: Sequence[str], special: Sequence[bool], place: int) -> tuple[int, int]:
    """The token that holds character `place` of the text, and how many of its characters come before."""
    seen = 0
    for at, piece in enumerate(pieces):
        size = 0 if special[at] else len(piece)
        if seen + size > place:
            return at, place - seen
        seen += size
        if seen == place and at + 1 < len(pieces) and special[at + 1]:
            return at + 1, 0  # nothing but the stop token comes after
    return len(pieces), 0


def _rounded(value: float | None) -> float | None:
    if value is None or value != value or abs(value) == float("inf"):
        return None
    return round(value, 5)
