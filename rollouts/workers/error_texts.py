"""What Ray says of a worker that failed, cut to what a person needs."""

from __future__ import annotations

import re
import textwrap

_RAISED = re.compile(r"^(?=[\w.]+(?:Error|Exception|Exit|Interrupt)\b)", re.MULTILINE)  # where a traceback says what


def one_line(error: BaseException) -> str:
    """A library's message as one line, cut short at the front: the cause stands last."""
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else "..." + text[-397:]


def last_error(error: BaseException) -> str:
    """What the process raised in the end, out of Ray's text, which carries its whole traceback."""
    *_, raised = _RAISED.split(str(error))
    return textwrap.shorten(raised, 400, placeholder=" ...")


def exit_of(error: BaseException | str) -> str:
    """How a worker's process ended, out of Ray's long text; empty where it does not say."""
    text = " ".join(str(error).split())
    return text.rpartition("actor is dead because ")[2].partition(" Some common causes")[0][:300]
