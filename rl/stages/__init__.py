"""The stages of a run, one file for each kind, what a stage is (`stage`), and what they are made of.

A new kind of stage is a file here, a file in `configs` with its keys, and a line of `STAGE_KINDS` in
`configs/stage_kinds.py`. Start with `stage`.
"""
