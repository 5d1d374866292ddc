"""Where questions come from: built-in tasks, data files, Python files, weighted mixtures, the curriculum.

A new built-in is a file here and a line of `BUILT_IN` in `source.py`; data that needs Python can stay in a file of the
user's (`task_file`). Prompts are rendered here too. Start with `mixture`.
"""
