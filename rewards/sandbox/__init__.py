"""Worker processes with a deadline and a memory limit, and the queue in front of them. Start with `pool`."""
