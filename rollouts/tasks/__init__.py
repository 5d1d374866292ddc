"""Where questions come from: built-in tasks, data files, Python files, weighted mixtures, the curriculum.

Prompts are rendered here too. Start with `mixture`.
"""
