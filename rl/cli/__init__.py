"""The command `thinkvl`: arguments, help and errors. Nothing that trains lives here. Start with `main`."""
