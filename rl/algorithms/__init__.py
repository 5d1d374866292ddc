"""Advantages and losses as pure functions in the symbols of the papers.

They import torch and the types alone: no Ray, no I/O, no process group. Start with `policy_loss`.
"""
