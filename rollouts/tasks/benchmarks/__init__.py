"""Public benchmarks: one small file for each layout, from a row to a task with the official prompt and answer rule.

`table.BENCHMARKS` lists them by name; a new one is a file here and a line there. `loading` opens the data. Each file
says which repository and path its layout, prompt and rule are from. Start with `layout`.
"""
