"""Is the answer right? Verifiers, answer extraction, shaping and plug-ins; imports neither torch nor Ray."""
