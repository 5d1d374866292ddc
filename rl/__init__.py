"""Answers to weights: advantages, losses, batches, the learner, the stages and the command line."""
