"""Reward functions of others: how they are found, adapted, run and tested. Start with `interface`."""
