"""The work behind each command of `thinkvl`; `rl.cli` holds their arguments and help."""
