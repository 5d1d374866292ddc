"""Errors that a user can act on. The command line prints their text; a traceback is for our own mistakes."""

from __future__ import annotations


class UserError(RuntimeError):
    """Something in the user's hands is wrong; the text says what, what is allowed, and how to mend it."""
