"""Builds data sets with a model: prompts for RL (`thinkvl curate`), worked solutions for SFT (`thinkvl build-cot`).

Start with `curate.py` and `build_cot.py`, the two commands. `sampling.py` samples from a model and stores the samples;
`kinds.py`, `duplicates.py` and `balance.py` are the rules, pure functions without a model.
"""
