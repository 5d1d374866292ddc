"""Advantages and losses as pure functions in the symbols of the papers.

They import torch and the types alone: no Ray, no I/O, no process group. A new algorithm is a row of `ALGORITHMS` in
`configs/algorithms.py` and, where its loss is new, a line of `policy_loss`. Start with `policy_loss`.
"""
