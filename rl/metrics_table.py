"""Every metric that a run writes: its name, unit and meaning, and what a healthy run shows.

docs/metrics.md is generated from these tables. A part of a name in capitals stands for any text: `accuracy/SOURCE` is
the accuracy of each data source. The part after `Healthy:` is left out where any value is fine.
"""

from __future__ import annotations

import re

from rl.metric_entries import Metric, metrics
from rl.throughput_table import SPEED, TIME, USE

ROLLOUTS = metrics("""
rollouts (rollouts): Rollouts in all groups of the step. Healthy: `rl.prompts_per_step` x `rl.samples_per_prompt`,
  minus dropped ones
reward (reward): Mean reward, length reward included, before `rl.shuffle_rewards`. Healthy: rises
reward/PART (reward): Mean of one part before weighting: a reward of `rl.rewards`, `length`, `overlong`, or `repeat`
  (-1 for a completion that repeats itself). Healthy: `length` stays near 0; the part you train for rises
accuracy (share): Rollouts whose verdict is `correct`. Healthy: rises; it is sampled, so it is below the greedy
  accuracy
accuracy/SOURCE (share): The accuracy of one data source. Healthy: no source falls while another rises
no_answer_share (share): Rollouts in which the verifier found no answer. Healthy: falls towards 0
verifier_failures (rollouts): Rollouts that left their group: bad reference, timeout or crash. Healthy: 0; more than 1
  in 100 is a fault to look into
thinking_share (share): Rollouts with a closed, non-empty think block. Healthy: steady; read completions after a
  sudden change to 0 or 1
patterns/PATTERN (share): Rollouts with words of `planning`, `evaluation` (checks), `reflection` (corrections) or
  `exploration`; of at most about 256 rollouts. Healthy: a pattern that helps grows with the accuracy
tokens_mean (tokens): Mean length of a completion, stop token included. Healthy: grows while thinking pays, then
  levels off
truncated_share (share): Completions cut off at `rl.sampling.max_new_tokens` or by `rl.partial.max_segments`. Healthy:
  below 0.1; else raise the limit or the weight of the length reward
repeat_share (share): Completions that ended because they repeated themselves (`rl.sampling.repeat_window`). Healthy:
  near 0; a rise together with `truncated_share` means that the policy loops
signal_share (share): Groups whose rewards differ; with `dapo` or `dynamic` sampling, those with both right and wrong
  completions. Other groups train nothing. Healthy: 0.2 to 0.9; near 0 the tasks are too easy or too hard
skipped/REASON (tasks): Tasks of the step that could not be rendered, or are in quarantine (`skipped/quarantine`).
  Healthy: absent
""")

PARTIAL = metrics("""
partial/pending (groups): Groups with an unfinished completion after the step. Healthy: below `rl.prompts_per_step`;
  more means that the budget is too small
partial/forced (completions): Completions cut off in the step after `rl.partial.max_segments` segments. Healthy: near
  0
partial/segments (segments): Mean number of segments of the completions in the groups that finished in the step.
  Absent if none finished. Healthy: below 2
partial/old_share (share): Tokens of these completions that earlier steps generated. Absent if no group finished.
  Healthy: below 0.5
""")

TOKENS = metrics("""
discarded/filtered (share): Tokens of groups without signal, and of completions whose verifier failed. Healthy: below
  0.5; else choose tasks by `rl.task_sampler`
discarded/truncated (share): Tokens of truncated completions that were left out (`rl.mask_truncated`), in groups with
  signal. Healthy: below 0.1
discarded/aborted (share): Tokens of unfinished completions in groups that were cancelled as too old. Healthy: 0 with
  `stale: wait`
discarded/stale (share): Tokens of complete groups that were dropped as too old. Healthy: 0 with `stale: wait`, else
  below 0.05: raise `max_staleness`
""")

ASYNCHRONOUS = metrics("""
staleness_mean (versions): Mean lag of the completions. Healthy: near `rl.asynchronous.max_staleness`; far below it, a
  smaller limit is enough
staleness_max (versions): Largest lag of a completion. Healthy: at most `rl.asynchronous.max_staleness`
staleness/LAG (share): Completions with this lag. Together these metrics are a histogram.
staleness_mixed (share): Completions that more than one policy version generated. Healthy: grows with the length of
  the completions
queue/ready (groups): Complete groups that are left after the step took its own. Healthy: above 0: the learner is the
  bottleneck; always 0: the workers are
queue/running (groups): Groups in the workers. Healthy: enough to keep every worker busy
queue/waiting (groups): Groups that wait until a worker has room.
""")

UPDATE = metrics("""
loss (loss): The policy loss, see [papers.md](papers.md), without the value loss of `ppo`. It is 0 on the first
  optimizer step with k1.5. Healthy: small; it need not fall
grad_norm (norm): Norm of the whole gradient before clipping. It is 0 while the policy waits for its critic. Healthy:
  steady; a spike of ten times is a warning
skipped_updates (share): Optimizer steps that were skipped because the gradient was not finite, or
  [a spike](reliability.md#a-step-that-goes-wrong). Five in a row end the run. Healthy: 0
learning_rate (rate): Learning rate of the first parameter group (Muon's with Muon). Healthy: as scheduled
entropy (nats): Mean entropy of the policy per token, under the temperature and the barred tokens. Healthy: falls
  slowly; near 0 the policy explores nothing new
approx_kl (nats): Mean over tokens of `exp(g) - 1 - g` (k3), with `g = log pi - log pi_engine`: the distance of the
  policy from the one that sampled, as the engine computed it. Healthy: below 0.02
clip_fraction (share): Tokens whose gradient the clip removed; with `cispo`, whose weight it changed. Absent with
  `kimi_k15`. Healthy: below 0.2
squared_log_ratio (reward): Mean over completions of `(tau / 2) d^2`, where `d` is the log-ratio of the whole
  completion. Only with `kimi_k15`. Healthy: below the spread of the rewards
sft_nll (nats): Mean negative log-likelihood of the tokens of correct completions. Only with `rl.loss.sft_coef`.
  Healthy: falls slowly
correction_mean (weight): Mean importance weight of a token, after truncating or masking. Only with
  `rl.loss.correction`. Healthy: near 1; well below with top-p, top-k or min-p
correction_outside (share): Tokens whose importance weight was truncated or masked. Only with `rl.loss.correction`.
  Healthy: below 0.01
value_loss (reward^2): Half the mean squared distance of the critic's values from the returns, with the value clip.
  Only with `ppo`. Healthy: falls
value_clip_fraction (share): Tokens whose value the clip limits. Only with `ppo`. Healthy: below 0.2
critic_grad_norm (norm): Norm of the critic's gradient before clipping; with a shared backbone, of its head alone.
  Only with `ppo`. Healthy: steady
experts/load_max (ratio): `E max_e(share of expert e)`, the largest of any layer, over the inputs that predict
  response tokens. It is 1 if all E experts are used alike. Healthy: below 4, and steady; post-training leaves the
  router's bias alone, so a rise comes from the router's weights
experts/load_min (ratio): `E min_e(share of expert e)`, the smallest of any layer. Healthy: above 0; at 0 an expert is
  idle in this step
experts/load_entropy (ratio): Mean over layers of the entropy of the experts' shares, divided by `log E`. Healthy:
  above 0.9; a fall means that the experts collapse
experts/flipped (share): Recorded routes (one token in one layer) whose experts the learner's router would not choose.
  Only with `rl.router_replay`. Healthy: 0 in float32 before the first update; 0.02 to 0.1 in bfloat16
balance_loss (ratio): Mean over layers and completions of the sequence-wise balance loss. It is 1 if the load is even.
  Only with `rl.loss.balance_coef`. Healthy: falls towards 1
logprob_gap_max (nats): Largest distance of a token's log-prob from the engine's. It also includes the movement of the
  policy: over several optimizer steps, since earlier steps (`rl.partial`), and over the staleness of asynchronous
  samples. Healthy: below 0.001 in float32 with one optimizer step; more means that engine and learner compute different
  things
""")

SAMPLES = metrics("""
masked_share (share): Tokens of the samples that are not trained on: inserted, or too old (`rl.partial.mask_age`).
  Absent if there are none. Healthy: below 0.5
kl_reference (nats): Mean over tokens of k3 of the policy before the update against the reference model. With one update
  a step the policy's log-probs are the engine's. Only with a reference model. Healthy: grows slowly; a jump means that
  the policy runs away
explained_variance (share): `1 - Var(R - V) / Var(R)` over tokens, of the returns `R` and the critic's values `V`, on
  completions that the critic has not been trained on. Only with `ppo`. Healthy: rises; how far depends on the task.
  Below 0 the critic does harm: lower `value_learning_rate` or set `pretrain_steps`
""")

WORKERS = metrics("""
parity_gap (nats): Largest distance of a token's log-prob between any worker and the learner, on fixed prompts after
  the weight sync; in bfloat16 the median. Healthy: below 1e-4 in float32; above `rl.parity_threshold` it ends the run
workers/deaths (workers): Workers that were killed or lost. Healthy: 0
workers/exceptions (workers): Workers that were replaced because the engine raised an exception. Healthy: 0
workers/hangs (workers): Workers that were replaced because they made no progress. Healthy: 0
workers/padding (share): Padded positions among all positions that the engines computed, prompts and completions,
  from the start of the command until the last weight sync. Healthy: below 0.2; prompts of unequal length pad most
workers/quarantined (tasks): Tasks in quarantine since the run began. Healthy: 0
workers/retired (workers): Workers that were lost, and for which no node has room now. Healthy: 0
""")

TASKS = metrics("""
task_sampler/tasks_seen (tasks): Tasks used so far. Healthy: grows to the size of the pool
task_sampler/success (share): Mean success rate of the tasks. Healthy: rises
task_sampler/unsolved_share (share): Tasks with success rate 0. Healthy: falls
task_sampler/solved_share (share): Tasks with success rate 1. They have no signal any more. Healthy: below 0.5; else
  take
  harder tasks, or `prioritized`
task_sampler/open_share (share): Tasks that the curriculum has opened. Only with `curriculum_by_success`. Healthy:
  reaches
  1 well before the end
task_sampler/refill_rounds (rounds): Rounds of refilling in the step. Only with `dynamic`. Healthy: below
  `rl.task_sampler.rounds`; at it, steps lack groups with signal
""")

EVALUATION = metrics("""
tasks (tasks): Tasks that were evaluated: all but those in quarantine. Healthy: constant
greedy_accuracy (share): Correct completions among the greedy ones that have a verdict. Failed verifications are left
  out. Healthy: rises
greedy_accuracy/SOURCE (share): The greedy accuracy of one data source.
perplexity/SOURCE (perplexity): Perplexity of the held-out documents of one data source. Only in `held_out/STAGE`,
  where `data.held_out` has documents. Healthy: falls
before/greedy_accuracy (share): The greedy accuracy of the model that entered the stage. Only in `held_out/STAGE` of a
  `long2short` stage. Healthy: near `greedy_accuracy`
before/mean_tokens (tokens): The mean length of its greedy completions. Only there. Healthy: above `mean_tokens`
needles/KIND (share): Values found in needle documents, over all depths and lengths; KIND is `text` or `image`. Only
  in `held_out/STAGE` of a `long_context` stage. Healthy: above `before/needles/KIND`
needles/KIND/LENGTH (share): The same of the documents that are LENGTH tokens long. Healthy: near 1 at every length
before/needles/KIND (share): The same of the model that entered the stage, with its own RoPE base.
before/needles/KIND/LENGTH (share): The same of the documents that are LENGTH tokens long.
image_to_text_1/SOURCE (share): Held-out images whose own caption is the most similar of all distinct captions of their
  source. Only in `held_out/STAGE` of a `vit` stage, as the next four. Chance is 1 in the number of captions. Healthy:
  rises
image_to_text_5/SOURCE (share): The same among the five most similar. Healthy: rises
text_to_image_1/SOURCE (share): Distinct captions whose most similar image has this caption. Healthy: rises
text_to_image_5/SOURCE (share): The same for one of the five most similar. Healthy: rises
pairs/SOURCE (pairs): Held-out pairs of one source.
before/RECALL/SOURCE (share): Each of these five before the first step, when the text modules have random weights.
  Healthy: near chance
explained_variance (share): As in stage `rl`, of sampled completions to validation tasks, which are never trained on.
  Only in `validation/STAGE`, with `ppo`. Healthy: rises
sampled_accuracy (share): Correct completions among those sampled under `rl.sampling`. Only in `held_out/STAGE`.
  Healthy: rises faster than the greedy accuracy
thinking_share (share): Greedy completions with a closed, non-empty think block.
mean_tokens (tokens): Mean length of a greedy completion.
truncated_share (share): Greedy completions cut off at `evaluation.max_new_tokens`. Healthy: below 0.05
verifier_failures (completions): Greedy and sampled completions whose verification failed. Healthy: 0
""")

_SUPERVISED = metrics("""
loss (nats): Mean negative log-likelihood of the completions' tokens, over the whole step. Healthy: falls
grad_norm (norm): Norm of the gradient before clipping. Healthy: steady
learning_rate (rate): Learning rate of the first parameter group. Healthy: as scheduled
loss/SOURCE (nats): The loss of one data source. Healthy: no source rises while another falls
skipped_updates (share): 1 where the gradient was not finite and the step was not made. Healthy: 0
tokens (tokens): Tokens of the step that are predicted. Healthy: steady
sequence_tokens (tokens): Tokens of the step that are read, prompts and images included. Healthy: steady
balance_loss (loss): Mean over the layers of the routers' balance loss. Only with `balance_coef`. Healthy: near 1
""")

_VIT = metrics("""
loss (nats): The contrastive loss plus `caption_coef` times the caption loss. Healthy: falls
contrastive_loss (nats): SigLIP's loss, a sum over the step's captions averaged over its images. Healthy: falls
caption_loss (nats): Mean cross-entropy of the captions' tokens, given the image. Healthy: falls
batch_recall (share): Images whose most similar caption of the step is their own. Healthy: rises
scale (factor): The factor of the similarities, SigLIP's `t`. Healthy: between 5 and 100
bias (logit): What is added to all similarities, SigLIP's `b`. Healthy: negative
grad_norm (norm): Norm of the gradient before clipping. Healthy: steady
learning_rate (rate): Learning rate of the first parameter group. Healthy: as scheduled
skipped_updates (share): 1 where the gradient was not finite and the step was not made. Healthy: 0
pairs (pairs): Image-text pairs of the step.
patches (patches): Patches of all its images.
""")

_PREFERENCE = metrics("""
loss (nats): Mean DPO loss over the pairs of the step. It is ln 2 = 0.693 before the first update. Healthy: falls
preference_accuracy (share): Pairs in which the chosen completion gained more than the rejected one, by the log-ratio
  against the entering model. Healthy: rises above 0.5
reward_margin (reward): Mean of `beta` times the difference of these log-ratios. Healthy: rises
logprob_chosen (nats): Mean log-prob of a whole chosen completion. Healthy: steady; a steep fall means that the policy
  leaves both completions: lower the learning rate, or raise `beta`
logprob_rejected (nats): Mean log-prob of a whole rejected completion. Healthy: falls
grad_norm (norm): Norm of the gradient before clipping. Healthy: steady
learning_rate (rate): Learning rate of the first parameter group. Healthy: as scheduled
skipped_updates (share): 1 where the gradient was not finite and the step was not made. Healthy: 0
tokens (tokens): Tokens of the chosen and the rejected completions of the step.
""")

RL = (*ROLLOUTS, *PARTIAL, *TOKENS, *ASYNCHRONOUS, *UPDATE, *SAMPLES, *TIME, *SPEED, *USE, *WORKERS, *TASKS)
SUPERVISED, VIT, PREFERENCE = ((*own, *SPEED) for own in (_SUPERVISED, _VIT, _PREFERENCE))

TABLES = {
    "metrics of rollouts": ROLLOUTS,
    "metrics of partial rollouts": PARTIAL,
    "metrics of tokens": TOKENS,
    "metrics of asynchronous runs": ASYNCHRONOUS,
    "metrics of the update": UPDATE,
    "metrics of samples": SAMPLES,
    "metrics of time": TIME,
    "metrics of speed": SPEED,
    "metrics of use": USE,
    "metrics of workers": WORKERS,
    "metrics of tasks": TASKS,
    "metrics of evaluation": EVALUATION,
    "metrics of supervised stages": _SUPERVISED,
    "metrics of vit stages": _VIT,
    "metrics of preference stages": _PREFERENCE,
}


def undeclared(names: set[str], table: tuple[Metric, ...]) -> set[str]:
    """The names that no metric of the table declares."""
    patterns = [re.compile(re.sub(r"[A-Z]{2,}", ".+", metric.name)) for metric in table]
    return {name for name in names if not any(pattern.fullmatch(name) for pattern in patterns)}
