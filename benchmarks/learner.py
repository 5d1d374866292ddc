"""The learner's update against TRL's GRPOTrainer: one model, the same rollouts, images, loss and optimizer, in fp32.

    python benchmarks/learner.py [--quick] [--runs 5]

Only the update is timed: losses, backward passes, clipping, optimizer step. TRL runs its own `_compute_loss` on the
batch as its trainer would make it (prompts padded on the left, completions on the right to the longest of the step,
images repeated for every completion) in micro-batches of 8, 16 and 32 completions; the best of these counts. Both run
in turn, in one process, on one thread. Ends with one line of JSON: tokens are completion tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig
from kimi_vl import KimiVLForConditionalGeneration, TinySizes
from kimi_vl.tiny import build_tiny_model, tiny_config
from rewards.types import Task
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.types import Sample
from rollouts.patches import Patches
from rollouts.types import Prompt

SIZES = TinySizes(  # about 7 million parameters
    hidden_size=256,
    num_hidden_layers=4,
    moe_intermediate_size=192,
    intermediate_size=768,
    kv_lora_rank=128,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=64,
    vision_hidden_size=128,
    vision_intermediate_size=384,
)
WORDS = 1024
GROUP = 8
GRID = (8, 8)  # patches of the image: 16 tokens
LEARNING_RATE = 1e-5


def make_samples(rng: np.random.Generator, model: KimiVLForConditionalGeneration, groups: int) -> list[Sample]:
    """Groups of completions with a long tail of lengths, for prompts of 24 to 48 words and one image."""
    samples = []
    for index in range(groups):
        words = rng.integers(0, WORDS, int(rng.integers(24, 49)))
        image = np.full(GRID[0] * GRID[1] // 4, model.config.media_placeholder_token_id)
        prompt = Prompt(
            id=str(index),
            task=Task(id=str(index), source="made", question="?", answer="1"),
            input_ids=np.concatenate([words[:4], image, words[4:]]),
            patches=Patches(rng.uniform(-1, 1, (GRID[0] * GRID[1], 3, 14, 14)).astype(np.float32)),
            image_grid_hws=np.array([GRID]),
        )
        for member in range(GROUP):
            length = int(np.clip(rng.lognormal(np.log(64), 0.6), 8, 256))
            samples.append(
                Sample(
                    id=f"{index}/{member}",
                    prompt=prompt,
                    token_ids=rng.integers(0, WORDS, length),
                    old_logprobs=(-np.log(WORDS) + 0.1 * rng.normal(size=length)).astype(np.float32),
                    advantage=float(rng.normal()),
                )
            )
    return samples


def our_update(model: KimiVLForConditionalGeneration, samples: Sequence[Sample]) -> Callable[[], float]:
    """Our learner's update; the call returns the loss."""
    config = LearnerConfig(
        loss=LossConfig(algorithm="grpo"),
        optimizer=OptimizerConfig(learning_rate=LEARNING_RATE),
        temperature=1.0,
        total_steps=1000,
        max_new_tokens=256,
        micro_batch_tokens=4096,
    )
    learner = Learner(model, config, barred_ids=())
    return lambda: learner.update(samples)["loss"]


def take_trl_names(model: KimiVLForConditionalGeneration) -> None:
    """Let the backbone read images as TRL hands them over: flat rows of pixels, `image_grid_thw`."""
    backbone, forward = model.model, model.model.forward

    def adapted(*args: Any, pixel_values: Any = None, image_grid_thw: Any = None, **kwargs: Any) -> Any:
        if pixel_values is not None:
            kwargs |= {"pixel_values": pixel_values.view(-1, 3, 14, 14), "image_grid_hws": image_grid_thw[:, 1:]}
        return forward(*args, **kwargs)

    backbone.forward = adapted


def make_trainer(model: KimiVLForConditionalGeneration, folder: str, micro: int) -> GRPOTrainer:
    """TRL's trainer around `model`, ready for `_compute_loss`."""
    words = {f"w{i}": i for i in range(WORDS)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), eos_token="w1", pad_token="w2"
    )
    arguments = GRPOConfig(
        output_dir=folder,
        beta=0.0,
        loss_type="grpo",
        num_generations=GROUP,
        per_device_train_batch_size=micro,
        max_completion_length=256,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        router_aux_loss_coef=0.0,
        report_to="none",
    )
    trainer = GRPOTrainer(
        model=model,
        args=arguments,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["w3"] * 8}),
        processing_class=tokenizer,
    )
    trainer.model.train()
    return trainer


def trl_batches(samples: Sequence[Sample], micro: int) -> list[dict[str, Any]]:
    """The step as TRL's trainer pads and cuts it. Both sides take their own log-probs as those of the old policy."""
    longest_prompt = max(len(s.prompt.input_ids) for s in samples)
    longest = max(len(s.token_ids) for s in samples)
    columns: dict[str, list[torch.Tensor]] = {
        name: [] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    }
    for sample in samples:
        before, after = longest_prompt - len(sample.prompt.input_ids), longest - len(sample.token_ids)
        ids, answer = torch.tensor(sample.prompt.input_ids), torch.tensor(sample.token_ids)
        pad = torch.nn.functional.pad
        columns["prompt_ids"].append(pad(ids, (before, 0)))
        columns["prompt_mask"].append(pad(torch.ones_like(ids), (before, 0)))
        columns["completion_ids"].append(pad(answer, (0, after)))
        columns["completion_mask"].append(pad(torch.ones_like(answer), (0, after)))
    batches = []
    for start in range(0, len(samples), micro):
        part = samples[start : start + micro]
        batches.append(
            {name: torch.stack(rows[start : start + micro]) for name, rows in columns.items()}
            | {
                "advantages": torch.tensor([s.advantage for s in part]),
                "pixel_values": torch.tensor(np.concatenate([s.prompt.pixel_values for s in part])).flatten(1),
                "image_grid_thw": torch.tensor([[1, *GRID]] * len(part)),
                "num_images": [1] * len(part),
                "num_items_in_batch": torch.tensor(sum(len(s.token_ids) for s in samples)),
            }
        )
    return batches


def trl_update(
    model: KimiVLForConditionalGeneration, samples: Sequence[Sample], folder: str, micro: int
) -> Callable[[], float]:
    """TRL's update of the same step; the call returns the loss."""
    trainer = make_trainer(model, folder, micro)
    batches = trl_batches(samples, micro)
    trainer.current_gradient_accumulation_steps = len(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)

    def update() -> float:
        total = 0.0
        for batch in batches:
            loss = trainer._compute_loss(trainer.model, batch)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return update


def build(seed: int = 0) -> KimiVLForConditionalGeneration:
    """The model of the benchmark: the same weights at every call."""
    return build_tiny_model(tiny_config(SIZES, num_tokens=WORDS), seed=seed)


def main() -> None:
    """Check that both compute one loss, time them in turn, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted updates of each side")
    parser.add_argument("--groups", type=int, default=16, help="prompts of the step, 8 answers each")
    parser.add_argument("--quick", action="store_true", help="4 prompts, 2 runs, one micro-batch size")
    args = parser.parse_args()
    groups, runs, sizes = (4, 2, (16,)) if args.quick else (args.groups, args.runs, (8, 16, 32))
    torch.set_num_threads(1)
    ours = build()
    parameters = sum(p.numel() for p in ours.parameters())
    samples = make_samples(np.random.default_rng(0), ours, groups)
    tokens = sum(len(s.token_ids) for s in samples)
    with tempfile.TemporaryDirectory() as folder:
        updates = {"thinkvl": our_update(ours, samples)}
        for micro in sizes:
            theirs = build()
            take_trl_names(theirs)
            updates[f"trl/{micro}"] = trl_update(theirs, samples, folder, micro)
        losses = {name: update() for name, update in updates.items()}  # this is the warm-up too
        apart = max(abs(loss - losses["thinkvl"]) for loss in losses.values())
        if apart > 1e-4:
            raise SystemExit(f"the losses differ by {apart:.1e}: {losses}")
        seconds: dict[str, list[float]] = {name: [] for name in updates}
        for _ in range(runs):
            for name, update in updates.items():
                began = time.perf_counter()
                update()
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((name for name in medians if name != "thinkvl"), key=medians.__getitem__)
    print(f"{parameters:,} parameters, {groups} groups of {GROUP}, {tokens} answer tokens, one thread")
    for name, median in medians.items():
        print(f"{name:<8}  {median:7.3f} s  {tokens / median:8.0f} tokens/s  loss {losses[name]:+.6f}")
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}, torch {version('torch')}, transformers {version('transformers')}, trl {version('trl')}")
    ratios = [theirs / own for theirs, own in zip(seconds[best], seconds["thinkvl"], strict=True)]
    print(
        json.dumps(
            {
                "ratio": statistics.median(ratios),
                "trl": best,
                "loss_gap": apart,
                "runs": runs,
                "median_seconds": medians,
                "tokens_per_second": {name: tokens / median for name, median in medians.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
