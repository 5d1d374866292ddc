"""Messages for exceptions that the user can fix; all others keep their traceback."""

from __future__ import annotations

import errno
import re

from configs.errors import UserError
from configs.text import one_line

_RAY_TASK_ERROR = "ray.exceptions.RayTaskError"
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_DISK_TEXT = re.compile(r"No space left on device|os error (28|122|27)\b|PytorchStreamWriter failed writing")
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(error: BaseException) -> str | None:
    """The message for an error that the user can fix; None for a fault in our code, which keeps its traceback."""
    error = _without_ray(error)
    if isinstance(error, UserError):
        return str(error)
    if _is_full_disk(error):
        return _full_disk(error)
    if isinstance(error, ConnectionError) and "Ray" in str(error):
        return f"{error}; start the cluster, correct RAY_ADDRESS, or unset it to run on this machine"
    if isinstance(error, OSError):
        return _file_error(error)
    return None


def _without_ray(error: BaseException) -> BaseException:
    """The exception that an actor raised, without Ray's wrapper."""
    while _RAY_TASK_ERROR in _names(error):
        inner = vars(error).get("cause")
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    return error


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return True
    # torch and safetensors raise errors of their own kinds
    return isinstance(error, Exception) and _FULL_DISK_TEXT.search(str(error)) is not None


def _full_disk(error: BaseException) -> str:
    name = error.filename if isinstance(error, OSError) else None
    what = f"disk full while writing {name}" if name else f"disk full ({one_line(error)})"
    return (
        f"{what}; finished stages, older checkpoints and an older export are kept. "
        "Free some space (or raise the quota), then run the same command again"
    )


def _file_error(error: OSError) -> str:
    if error.errno is None:
        return one_line(error, limit=1000)  # libraries raise OSError for models and data they cannot find
    place = error.filename if error.filename is not None else "a file"
    if error.errno in _FORBIDDEN:
        return f"{place}: {error.strerror}; make it accessible for this user, or choose another place"
    return f"{place}: {error.strerror}"
