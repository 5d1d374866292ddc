"""What a run keeps and shows: folder, trackers, evaluation, report, model card, export. Start with `folder`."""
