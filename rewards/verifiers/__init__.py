"""One verifier a file, and `table`, which names them all. Start with `table`."""
