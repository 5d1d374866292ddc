"""The learner on several ranks: sharding (FSDP2), each rank's share of a step, checkpoints, Ray actors.

Parallelism is applied from outside the model. Start with `learner_group`.
"""
