"""The command `thinkvl`. Start with `main`."""
