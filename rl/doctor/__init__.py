"""`thinkvl doctor`: what would stop a run on this machine, and what stopped one.

`machine` and `ray_checks` hold the checks before a run, `run_checks` those of a run that is going or dead; the tables
are in `table`. Nothing here imports torch, Ray or a model at import time. Start with `table`.
"""
