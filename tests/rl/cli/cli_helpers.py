"""A finished run without training: a tiny checkpoint and the files that a run leaves, written by hand."""

import json
import shutil
from dataclasses import asdict

import numpy as np

from configs.load import dump_recipe, load_recipe
from kimi_vl import TinySizes
from rewards.types import Score, Verdict
from rl.run.folder import StageRecord
from rollouts.patches import Patches
from rollouts.types import Completion, Prompt, Rollout, ScoredRollout, Segment

SIZES = TinySizes(
    hidden_size=48,
    num_hidden_layers=2,
    moe_intermediate_size=32,
    intermediate_size=64,
    n_routed_experts=4,
    vision_hidden_size=48,
    num_merges=60,
    max_position_embeddings=512,
)
RECIPE = """
name: tiny-sums
output_dir: {output_dir}
data:
  train: [{{use: digit_sums, options: {{scans: [2]}}}}]
  held_out: [{{use: digit_sums, split: held_out, options: {{scans: [2]}}}}]
stages:
  - {{kind: sft, name: instruct, steps: 2, batch_size: 2}}
  - kind: rl
    steps: 2
    prompts_per_step: 2
    samples_per_prompt: 2
    loss: {{algorithm: grpo}}
evaluation: {{tasks: 6, validation_tasks: 2, samples: 2, max_new_tokens: 6}}
"""
RECORDS = (
    StageRecord(
        name="instruct",
        kind="sft",
        seconds=3.0,
        greedy_accuracy=0.25,
        sampled_accuracy=0.2,
        thinking_share=0.0,
        mean_tokens=2.0,
    ),
    StageRecord(
        name="rl",
        kind="rl",
        seconds=7.0,
        greedy_accuracy=0.875,
        sampled_accuracy=0.75,
        thinking_share=0.9,
        mean_tokens=31.5,
    ),
)


def write_run(folder, checkpoint, records=RECORDS):
    """Write `folder` as a run whose stages `records` are finished, all with the weights of `checkpoint`."""
    folder.mkdir(parents=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(output_dir=folder))
    recipe.write_text(dump_recipe(load_recipe(recipe)))
    for record in records:
        shutil.copytree(checkpoint, folder / record.name / "model")
        (folder / record.name / "stage.json").write_text(json.dumps(asdict(record)))
    summary = {"name": "tiny-sums", "seed": 0, "seconds": 12.0, "stages": [asdict(r) for r in records]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def scored(task, text, kind, reward, rule=""):
    """A rollout that was scored so."""
    prompt = Prompt(
        id=task.id,
        task=task,
        input_ids=np.arange(3),
        patches=Patches(np.zeros((0, 3, 14, 14), np.float32)),
        image_grid_hws=np.zeros((0, 2), np.int64),
    )
    logprobs = np.zeros(2, np.float32)
    completion = Completion(
        token_ids=np.arange(2),
        policy_logprobs=logprobs,
        sampler_logprobs=logprobs,
        finish_reason="stop",
        segments=(Segment(start=0, stop=2, version=0),),
    )
    score = Score(verdict=Verdict(kind=kind, score=float(kind == "correct"), rule=rule, extracted=text), reward=reward)
    return ScoredRollout(rollout=Rollout(prompt=prompt, index=0, completion=completion, text=text), score=score)
