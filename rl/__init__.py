"""Groups to weights. `step` is one step of reinforcement learning on one screen; `pipeline` runs a recipe's stages.

Rooms: `algorithms` (advantages, losses), `learner`, `distributed`, `stages`, `run` (folder, trackers, evaluation,
export) and `cli`. This package may import all others; none imports it. Start with `step`.
"""
