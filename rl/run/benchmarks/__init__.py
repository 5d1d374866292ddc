"""Evaluation on public benchmarks: `thinkvl eval MODEL --benchmark NAME`.

`answerers` and `engine_answerer` generate the answers (a server, an engine), `predictions` is the file that a killed
evaluation continues, `results` the figures and the table, `exports` the files that VLMEvalKit and lmms-eval score.
Start with `run`.
"""
