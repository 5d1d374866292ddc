"""One verifier a file, and `builtin`, which names them all.

A new verifier is a file here and a line of `VERIFIERS` in `builtin.py`. Start with `builtin`.
"""
