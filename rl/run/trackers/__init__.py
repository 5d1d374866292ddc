"""Where a run's metrics go: one file for each tracker, and the table `TRACKERS` in `table.py`.

Start with `table.py`. A new tracker is one file with a class like those here, and one line in the table. The libraries
behind the optional trackers are imported only where a run uses them.
"""
