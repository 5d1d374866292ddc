"""Alarms: what goes wrong in a stage of RL, with the rollouts that show it and what to do. Start in `table.py`.

A rule is a pure function of the numbers of the stage so far (`history.py`) and the rollouts of the newest step
(`facts.py`). `watch.py` applies the table after each step; `records.py` keeps what it said in `alarms.jsonl`.
"""
