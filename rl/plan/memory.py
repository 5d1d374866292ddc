"""Bytes on one device: of a learner rank, of a rollout worker; and in a node's main memory during a weight sync."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from configs.optimizer import OptimizerConfig
from rl.learner import nf4
from rl.plan import activations
from rl.plan.sizes import ModelSizes
from rollouts.engines.vllm_start import GPU_MEMORY
from rollouts.weight_stream import bucket_bytes

BYTES = {"float32": 4, "bfloat16": 2}
_BLOCK = 256  # numbers that share a scale in torchao's 8-bit moments
_WORKING = 2e9  # bytes of an engine's own buffers: a prefill of 8,192 tokens, logits, CUDA graphs; assumed
VLLM_SHARE = GPU_MEMORY  # of a worker's share of its card
BETWEEN_STEPS = ("weights", "moments", "reference", "critic")  # what a learner keeps while it does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What passes through a learner at a time."""

    tokens: int  # packed into one row
    predicted: int  # of them, tokens whose log-prob is computed
    patches: int = 0  # that pass the vision tower together
    passes: int = 1  # of the vision tower in a step; above 1 each part is encoded again for its gradient
    rows: int = 2  # packed rows of a step on this rank: from the second on, gradients exist beside activations
    features: int = 0  # image tokens of a step, kept with their gradient until its end
    segments: Sequence[tuple[int, int]] = ()  # (queries, keys) of the row, for the masked attention of CPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a stage trains: the parts of its recipe that decide about memory."""

    sizes: ModelSizes
    dtype: str
    optimizer: OptimizerConfig
    shards: int = 1  # ranks that divide the weights among them
    replicas: int = 1  # groups of such ranks
    sequence: int = 1  # ranks that share a row
    compute_dtype: str | None = None
    checkpointing: bool = False
    flash: bool = True  # the attention of GPUs in half precision
    reference: str | None = None  # `frozen` or `ema`: a further model
    critic: bool = False  # with a backbone of its own


def moments_bytes(training: Training) -> float:
    """The optimizer's state of all trained parameters. Adapters are float32, whatever the model is."""
    sizes, config = training.sizes, training.optimizer
    width = BYTES[training.dtype]
    if config.name == "muon":
        adapters = min(sizes.adapters, sizes.matrices)
        momentum = (sizes.matrices - adapters) * width + adapters * 4
        return momentum + 2 * (sizes.trained - sizes.matrices) * width
    if config.state == "8bit":
        return 2 * sizes.trained * (1 + 4 / _BLOCK)
    if config.state is not None:
        return 2 * sizes.trained * BYTES[config.state]
    return 2 * ((sizes.trained - sizes.adapters) * width + sizes.adapters * 4)


def weights_bytes(training: Training) -> float:
    """The model and its adapters, as a learner holds them."""
    sizes = training.sizes
    plain = sizes.parameters - sizes.quantized
    return plain * BYTES[training.dtype] + sizes.quantized * nf4.BYTES + sizes.adapters * 4


def learner_bytes(training: Training, load: Workload) -> dict[str, float]:
    """Bytes of one rank at the peak of an update, by what they are for."""
    sizes, width = training.sizes, BYTES[training.dtype]
    compute = BYTES[training.compute_dtype or training.dtype]
    own = sizes.trained - sizes.adapters
    summed = 4 if load.rows > 1 else width  # over rows in fp32
    gradients = (own * summed + sizes.adapters * 4) / training.shards
    found = {
        "weights": weights_bytes(training) / training.shards,
        "gradients": gradients,
        "moments": moments_bytes(training) / training.shards,
    }
    if sizes.quantized:
        found["unpacked"] = sizes.largest_quantized * compute
    if training.shards * training.replicas > 1:
        reduced = sizes.largest_unit * (width + 4) if own else 0
        found["units"] = 2 * sizes.largest_unit * compute + reduced
    if training.sequence > 1:  # embeddings and the last hidden states, with their gradients, are those of whole rows
        found["rows"] = 4.0 * load.tokens * sizes.config.text_config.hidden_size * compute
        load = replace(
            load, tokens=-(-load.tokens // training.sequence), predicted=-(-load.predicted // training.sequence)
        )
    if training.reference is not None:
        mean = 4 * own if training.reference == "ema" and width < 4 else 0
        found["reference"] = (own * width + mean) / training.shards
    if training.critic:
        found["critic"] = own * (width + summed) / training.shards + moments_bytes(training) / training.shards
    return found | _at_the_peak(training, load, compute, gradients)


def _at_the_peak(training: Training, load: Workload, compute: int, gradients: float) -> dict[str, float]:
    """Activations, image tokens and logits where their sum with the gradients is largest."""
    sizes, config = training.sizes, training.sizes.config
    text, vision = config.text_config, config.vision_config
    flash = training.flash or activations.takes_fused_kernel(text)
    scores = 0.0 if flash else activations.score_bytes(text, load.segments)
    row = activations.text_bytes(
        text, load.tokens, compute, flash=flash, checkpointing=training.checkpointing, scores=scores
    )
    layer = activations.layer_peak(text, load.tokens, compute, flash=flash, scores=scores)
    tower = 0.0
    if load.patches and sizes.trains_vision:
        tower = activations.vision_bytes(vision, load.patches, compute, checkpointing=training.checkpointing)
    elif load.patches:
        tower = load.patches * activations.block_bytes(vision, compute)
    trains_head = sizes.trains_text and not sizes.adapters
    head = activations.head_bytes(text, load.predicted, compute, trains=trains_head, flash=training.flash)
    features = 2.0 * load.features * text.hidden_size * max(compute, 4)  # and their gradients, which rows add up
    kept = row + (tower if load.passes == 1 else 0.0)  # several parts are encoded again after the last row
    # The head's backward pass is over when that of the last layer begins.
    working = max(layer, head)
    held = max(kept + working, tower)
    if load.rows == 1:  # gradients appear as activations go
        held = max(held - gradients, layer, tower)
    logits = min(head, held) if head > layer else 0.0
    return {"activations": held - logits, "images": features, "logits": logits}


def kv_bytes(sizes: ModelSizes, tokens: float, dtype: str) -> float:
    """The cache of so many tokens: for each layer a latent and a rotary key, whatever the number of heads."""
    return tokens * sizes.kv_numbers * BYTES[dtype]


def engine_bytes(sizes: ModelSizes, dtype: str, *, cached: float, split: int = 1) -> dict[str, float]:
    """Bytes of a rollout worker on each of the `split` cards that hold it, with `cached` tokens in its cache.

    Weights are split; of latent attention's cache, which has one head, each card holds the whole.
    """
    return {
        "weights": sizes.parameters * BYTES[dtype] / split,
        "KV cache": kv_bytes(sizes, cached, dtype),
        "working memory": min(_WORKING, 8.0 * sizes.parameters),
    }


def kv_tokens(sizes: ModelSizes, dtype: str, memory: float, *, split: int = 1) -> int:
    """The tokens for which `memory` of each card leaves room beside weights and working memory."""
    fixed = sum(engine_bytes(sizes, dtype, cached=0, split=split).values())
    return max(0, int((memory - fixed) / kv_bytes(sizes, 1, dtype)))


def sync_bytes(sizes: ModelSizes, dtype: str) -> dict[str, float]:
    """Main memory of the busiest node during a weight sync, which travels in the engines' type, in buckets.

    The first rank holds three buckets of whole layers at most. The object store of a node with workers keeps one
    version, for workers that are replaced later.
    """
    whole, unit = BYTES[dtype] * sizes.parameters, BYTES[dtype] * sizes.largest_unit
    return {"three buckets": 3.0 * max(bucket_bytes(whole), unit), "object store": float(whole)}


def total(parts: Mapping[str, float]) -> float:
    """All bytes of a device."""
    return sum(parts.values())
