"""The parts of a run around the training: folder, trackers, evaluation, report, model card, export.

Start with `folder`.
"""
