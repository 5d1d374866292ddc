"""From tasks to scored groups: requests, scoring, group building, reward shaping. Start with `sync`."""
