"""Errors that a user can act on; see `configs.errors.UserError`."""

from configs.errors import UserError

__all__ = ["UserError"]
