"""Engines: requests to completions. `protocol` is what an engine implements, `driver` what all of them share.

`transformers` runs the model in process; `vllm` is imported only where it is chosen. Engines run without Ray.
Start with `protocol`; `table` names them all.
"""
