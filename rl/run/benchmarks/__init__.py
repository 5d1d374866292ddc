"""Public benchmarks, run to the end and written down: `thinkvl eval MODEL --benchmark NAME`.

`answerers` and `engine_answerer` are what answers (a server, an engine of ours), `predictions` the file that a killed
evaluation continues, `results` the figures and the table, `exports` the files that VLMEvalKit and lmms-eval score.
Start with `run`.
"""
