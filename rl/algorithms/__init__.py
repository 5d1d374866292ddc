"""Advantages, credit and losses as pure functions. Start with `policy_loss`."""
