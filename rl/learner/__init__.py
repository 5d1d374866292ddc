"""From samples to an update of the policy. Start with `learner`."""
