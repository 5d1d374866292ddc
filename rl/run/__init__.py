"""A run's folder, context, trackers, evaluation, report and export."""
