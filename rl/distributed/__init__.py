"""The learner on several ranks: sharding, each rank's share of a step, checkpoints, Ray actors."""
