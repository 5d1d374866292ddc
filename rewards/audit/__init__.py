"""Checks of data and verifiers before a run. Start with `check`."""
