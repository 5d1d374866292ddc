"""Is the answer right? Verifiers, answer extraction, shaping and plug-ins; imports neither torch nor Ray."""

from typing import TYPE_CHECKING, Any

from rewards.types import Score, Task, Verdict, VerdictKind

if TYPE_CHECKING:
    from rewards.scorer import Scorer

__all__ = ["Score", "Scorer", "Task", "Verdict", "VerdictKind"]


def __getattr__(name: str) -> Any:
    """`Scorer`, when it is first used: engines and learner read the types alone, and need no verifier's libraries."""
    if name == "Scorer":
        from rewards.scorer import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
