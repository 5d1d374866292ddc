"""The text of each token of a completion, so that a page can colour tokens one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

_LONGEST_CHARACTER = 8  # tokens that one character may be made of
_BROKEN = "\ufffd"  # what bytes that are no UTF-8 become


class TokenPieces:
    """Cuts completions into the texts of their tokens, by the `tokenizer.json` of the model that sampled them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.special = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._known: dict[int, str] = {}

    @classmethod
    def find(cls, folders: Iterable[Path]) -> TokenPieces | None:
        """The tokenizer of the first folder that has a readable `tokenizer.json`; None if no folder has one."""
        for folder in folders:
            try:
                return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))
            except Exception:  # tokenizers raises no narrower type, for a missing or damaged file
                continue
        return None

    def split(self, token_ids: Sequence[int], text: str) -> list[str] | None:
        """The text of each token; special tokens have their names. None if together they are not `text`.

        A character of several tokens belongs to the last of them; the others have an empty text.
        """
        pieces: list[str] = []
        pending: list[int] = []
        for token in token_ids:
            if token in self.special:
                pieces += self._flushed(pending)
                pieces.append(self.special[token])
                pending = []
                continue
            pending.append(token)
            one = self._decoded(pending)
            if _BROKEN not in one or len(pending) == _LONGEST_CHARACTER:
                pieces += [""] * (len(pending) - 1) + [one]
                pending = []
        pieces += self._flushed(pending)
        own = "".join(piece for token, piece in zip(token_ids, pieces, strict=True) if token not in self.special)
        return pieces if own.replace(_BROKEN, "") == text.replace(_BROKEN, "") else None

    def _flushed(self, pending: Sequence[int]) -> list[str]:
        """The pieces of tokens that ended in the middle of a character."""
        return [""] * (len(pending) - 1) + [self._decoded(pending)] if pending else []

    def _decoded(self, token_ids: Sequence[int]) -> str:
        if len(token_ids) > 1:
            return self._tokenizer.decode(list(token_ids))
        token = token_ids[0]
        if token not in self._known:
            self._known[token] = self._tokenizer.decode([token])
        return self._known[token]
