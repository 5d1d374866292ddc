"""Questions to scored groups: tasks and prompts, engines, the Ray actors that run them, and scoring.

Rooms: `tasks`, `engines`, `workers`, `sources`. It may import `configs`, `rewards` and, in `model_family` alone, the
model: a new family is a package of its own at the top and a line of `FAMILIES` there. Start with `types`.
"""
