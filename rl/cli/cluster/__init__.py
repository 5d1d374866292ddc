"""Runs on a Ray cluster: the files that are sent, the client of Ray Jobs, and the entry point of a job."""
