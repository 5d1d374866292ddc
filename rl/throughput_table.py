"""The metrics of seconds, speed, idle shares, caches and memory; `rl/metrics_table.py` has the others."""

from __future__ import annotations

from rl.metric_entries import metrics

TIME = metrics("""
seconds/step (s): The whole step: the sum of `rollout`, `update`, `record` and `publish`. Evaluations and checkpoints
  come after it.
seconds/rollout (s): Drawing tasks, rendering, generating and scoring, refills included. In an asynchronous run:
  waiting for groups. Healthy: the largest part; in an asynchronous run near 0 if the learner is the bottleneck
seconds/generate (s): The part of `rollout` in which the driver waited for the workers.
seconds/record (s): Handing the rollouts of the step to the thread that writes them beside the learner, waiting for the
  step before it to be on disk, and the metrics. Healthy: near 0
seconds/update (s): Log-probs before the update, advantages, samples and all optimizer steps.
seconds/learner (s): The part of `update` in which the learner ran.
seconds/publish (s): Weight sync to every worker, and the parity check. Healthy: a few per cent of the step
seconds/driver (s): `step - generate - learner - publish`: neither workers nor learner were waited for. Healthy: a few
  per cent of the step
version (version): Policy version that the workers serve after the step. Healthy: equals the step
""")

SPEED = metrics("""
tokens_per_second/learner (tokens/s): Tokens of the step's samples, divided by the seconds that the learner ran. A
  prompt counts once with its image tokens, a completion without its last token. Healthy: steady
tflops/learner (TFLOP/s): Operations of the learner a second, `rl/throughput.py`. A matrix of p parameters costs 2p a
  token forward, 2p for the gradient of its inputs and 2p for its own where it is trained; attention costs as much as
  its pairs of tokens need. Passes before the update, reference and critic count; recomputed activations, padding and
  the optimizer do not.
mfu/learner (share): `tflops/learner` divided by the dense bfloat16 peak of all its cards. Absent on a CPU and on cards
  that `rl/plan/hardware.py` does not know. Healthy: above 0.2 with LoRA, above 0.3 with long rows
memory/learner (GB): Peak resident memory of the learner's process, of the largest one on several ranks. Healthy: it
  stops growing
cuda_memory/learner (GB): Peak memory that PyTorch allocated on its card. Absent on a CPU. Healthy: below 95 % of the
  card
""")

USE = metrics("""
tokens_per_second/rollouts (tokens/s): Tokens of the completions that the step got, divided by `seconds/rollout`. With
  a window or partial rollouts, tokens of earlier steps are among them. Healthy: steady; it falls as completions of one
  step become less equal in length
tflops/rollouts (TFLOP/s): Operations of the engines a second: each prompt with its images once, each token through the
  matrices once, absorbed attention over what it sees.
mfu/rollouts (share): `tflops/rollouts` divided by the dense bfloat16 peak of the workers' cards. Absent as above.
  Healthy: small: decoding waits for memory, not for arithmetic
idle/learner (share): `1 - seconds/learner / seconds/step`. Healthy: near 0 in an asynchronous run
idle/workers (share): `1 - B / (N S)` for N workers in S seconds of the step, B of which their engines ran in all.
  Healthy: near 0 in an asynchronous run; in a synchronous one the learner's share
idle/driver (share): `1 - seconds/driver / seconds/step`. Healthy: near 1
cache/full (share): The largest part of an engine's KV cache that was in use. Absent where the engine does not tell.
  Healthy: below 1; at 1 samples wait, or are computed again
cache/prompt_hits (share): `1 - C / P` for P prompt tokens, image tokens among them, that samples needed, and C that
  went through the model. Absent as above. Healthy: near `1 - 1 / rl.samples_per_prompt`
memory/workers (GB): Peak resident memory of the largest worker.
cuda_memory/workers (GB): Peak memory that PyTorch allocated on the card of a worker. Absent on a CPU.
memory/driver (GB): Peak resident memory of the driver. Healthy: it stops growing
publish_gb_per_second (GB/s): Bytes of one copy of the weights, divided by the seconds in which they were gathered,
  sent, loaded and proven by checksum on every worker.
""")
