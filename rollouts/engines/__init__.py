"""Engines: prompts to completions. `transformers` runs our own model in process, without Ray."""
