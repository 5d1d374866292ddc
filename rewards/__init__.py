"""Is the answer right? Verifiers, answer extraction, shaping and plug-ins; imports neither torch nor Ray."""

from rewards.scorer import Scorer
from rewards.types import Score, Task, Verdict, VerdictKind

__all__ = ["Score", "Scorer", "Task", "Verdict", "VerdictKind"]
