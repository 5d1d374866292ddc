"""A reward of one's own in one file: short answers score higher.

Copy this file to the folder that you run in, and add it to the recipe's rewards:

    rl:
      rewards:
        - use: verifier                # is the answer right?
        - use: brevity.py:brevity      # this function; the path is relative to the folder that you run in
          weight: 0.1

A reward gets the whole response, the reference answer and the task, and returns a float, a `rewards.Verdict`, or a dict
of named parts that are summed. An exception, NaN or a wrong type takes the response out of its group and is counted.
`thinkvl check-reward brevity.py:brevity` tests it on ordinary and on hostile responses.
"""

from rewards import Task
from rewards.extraction import split_thinking

LONGEST = 200  # characters; an answer of this length or more gets nothing


def brevity(response: str, reference: str, *, task: Task) -> float:
    """From 1 for an empty answer down to 0 for one of `LONGEST` characters; the thinking is not counted."""
    return max(0.0, 1.0 - len(split_thinking(response).answer_text.strip()) / LONGEST)
