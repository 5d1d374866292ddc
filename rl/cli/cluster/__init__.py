"""A run on a Ray cluster: what travels there, the client of Ray Jobs, and what starts the run on the other side."""
