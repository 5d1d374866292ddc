"""From tasks to scored groups.

`rollout_pipeline` turns prompts into scored rollouts, for training and evaluation. `source` is the protocol of a run's
source of groups, and `window` its implementation: synchronous, asynchronous and partial rollouts. `group_building` and
`reward_shaping` make groups and add to their rewards. Start with `rl/step.py`, which calls all of them.
"""
