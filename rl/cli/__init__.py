"""The command line `thinkvl`: arguments, help and errors; no training code. Start with `main`."""
