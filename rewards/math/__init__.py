"""Mathematical answers: normalising, parsing and comparing them. Start with `comparison`."""
