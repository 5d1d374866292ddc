"""What a recipe needs before it runs: steps, memory of each device, time, and problems of its data. No GPU is used.

Start at `rl.plan.plan.make_plan`. Sizes come from the model built on the meta device, without weights; everything else
is arithmetic on them and on the recipe. Other packages of `rl` may import any module here.
"""
