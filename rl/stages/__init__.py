"""The stages of a run: supervised warm-starts and reinforcement learning."""
