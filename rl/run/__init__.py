"""What a run keeps and shows: folder, context, trackers, evaluation, report, model card, export. Start with `folder`."""
