"""The learner on several ranks: sharding (FSDP2), each rank's share of a step, checkpoints, Ray actors.

Models know nothing of it, and the learner only `rl.learner.parallel`. Start with `sharded`; only `learner_group`
imports Ray.
"""
