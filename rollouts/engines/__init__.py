"""Engines: requests to completions. `protocol` is what an engine implements, `driver` what all of them share.

`transformers` runs the model in process; `vllm` is imported only where it is chosen. Engines run without Ray.
A new built-in engine is a file here and a line of `configs.engine.ENGINES`; a recipe may also name a file of the user's
(`engine_file`). `engine_spec` says which engine a worker builds. Start with `protocol`.
"""
