"""Data made with a model: prompts for RL (`thinkvl curate`), and worked solutions for a long-CoT stage (`build-cot`).

Start with `curate.py` and `build_cot.py`, the two commands. `sampling.py` draws samples from a model and keeps them;
`kinds.py`, `duplicates.py`, `balance.py` and `patterns.py` are the rules, pure functions without a model.
"""
