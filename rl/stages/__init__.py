"""The stages of a run: supervised fine-tuning and reinforcement learning. Start with `rl`."""
