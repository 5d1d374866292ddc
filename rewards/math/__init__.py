"""Mathematical answers: normalising, parsing and comparing them.

All work is bounded and in process, except `symbolic`, which a worker process runs. Start with `comparison`.
"""
