"""Advantages, credit and losses as pure functions in the papers' symbols.

They import torch and the types alone: no Ray, no I/O, no process group. Start with `policy_loss`.
"""
