"""The learner on several ranks: sharding from outside the model, each rank's share of a step, checkpoints, actors."""
