"""Ray actors with an engine each, and the pool that hands them requests. Start with `pool`."""
