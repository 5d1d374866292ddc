"""How a step of RL spreads over 1 to 1,024 cards: the split between learner and rollouts, and what limits the step.

Learner and rollouts work at the same time, as in an asynchronous run; on one card they take turns. Everything is
counted from the model's config and the rates of `rl.plan.hardware`. No contention, stragglers or failures are counted,
so real steps are longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from configs.optimizer import OptimizerConfig
from rl.plan import memory, roofline
from rl.plan.hardware import FULL_TRAINING, RESERVED, Gpu
from rl.plan.sizes import ModelSizes
from rl.plan.timing import ROWS, decode_seconds

NODE = 8  # cards that NVLink joins
NVLINK = 450e9  # bytes a second of one card and direction inside a node: NVIDIA's data sheet of H100 SXM
NETWORK = 50e9  # bytes a second of one card between nodes: one 400 Gbit/s port each
SYNC = 8.25e9  # bytes a second of a weight sync over NCCL: verl's figure for a 30B-A3B on 32 H100
LEAST_CACHE = 0.3  # of an engine's memory, kept for its KV cache
TRAINS = "bfloat16"
_SUMMED = 4  # bytes of a gradient on its way between ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One step of RL."""

    completions: int = 8192
    samples: int = 16  # completions of a prompt
    prompt: int = 1200  # tokens
    answer: int = 8192  # mean tokens of a completion
    longest: int = 32768

    @property
    def tokens(self) -> int:
        """Trained tokens; a prompt is packed once with its completions."""
        return self.completions // self.samples * self.prompt + self.completions * self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A number of cards, divided between learner and rollouts. Seconds are of one step."""

    cards: int
    learner: int  # cards
    shards: int  # cards that hold one copy of weights, gradients and moments; each further group is a replica
    experts: int  # cards among which the experts of a layer are divided; 1: every card gathers all of them
    learner_bytes: float  # on a card
    engine: int  # cards of one engine
    compute: float  # the learner's operations
    traffic: float  # gathering weights and reducing gradients, if nothing hides it
    decode: float  # until the engines have made all tokens
    tail: float  # then, until the longest completion ends
    sync: float  # weights to the engines

    @property
    def update(self) -> float:
        """Seconds of the update: its traffic overlaps with its operations."""
        return max(self.compute, self.traffic)

    @property
    def step(self) -> float:
        """Seconds of the step."""
        rollout = self.decode + self.tail
        return (self.update + rollout if self.cards == 1 else max(self.update, rollout)) + self.sync

    @property
    def limit(self) -> str:
        """What takes longest, which more cards of the same kind would have to shorten."""
        rollout = self.decode + self.tail
        update = "learner's operations" if self.compute >= self.traffic else "learner's traffic"
        parts = {
            update: self.update if self.cards == 1 or self.update > rollout else 0.0,
            "decoding": self.decode,
            "longest completion": self.tail,
            "weight sync": self.sync,
        }
        return max(parts, key=lambda name: parts[name])


def engine_cards(sizes: ModelSizes, gpu: Gpu) -> int:
    """The cards of one engine: the smallest power of two that holds the weights and leaves room for the cache."""
    room = gpu.memory * memory.VLLM_SHARE * (1 - LEAST_CACHE)
    cards = 1
    while cards * room < sizes.parameters * memory.BYTES[TRAINS]:
        cards *= 2
    return cards


def shards_needed(sizes: ModelSizes, gpu: Gpu, work: StepWork) -> tuple[int, int]:
    """The cards of one copy of the learner, and among how many of them experts must be divided: smallest powers of two.

    FSDP makes a layer whole at a time. A layer that is too large for a card has to have its experts divided.
    """
    powers = [2**power for power in range(11)]
    most = sizes.config.text_config.n_routed_experts
    for shards in powers:
        for experts in (count for count in powers if count <= min(shards, most)):
            if memory.total(_learner(sizes, work, shards, experts)) <= gpu.memory - RESERVED:
                return shards, experts
    raise ValueError("no number of cards holds the learner; is a row of `longest` tokens too long for one card?")


def best_split(sizes: ModelSizes, gpu: Gpu, cards: int, work: StepWork) -> Split | None:
    """The fastest split of so many cards. None where learner and engine do not fit beside each other.

    One card is shared: the engine sleeps while the learner works.
    """
    (shards, experts), engine = shards_needed(sizes, gpu, work), engine_cards(sizes, gpu)
    if cards == 1:
        return (
            _split(sizes, gpu, work, cards=1, learner=1, shards=1, experts=1, engine=1)
            if shards == engine == 1
            else None
        )
    found = [
        _split(sizes, gpu, work, cards=cards, learner=learner, shards=shards, experts=experts, engine=engine)
        for learner in range(shards, cards - engine + 1, shards)
    ]
    return min(found, key=lambda split: split.step, default=None)


def exchanged_bytes(sizes: ModelSizes, tokens: float) -> float:
    """Bytes that a card sends when experts are divided: hidden states to the experts and back, in each layer.

    Three times: forward, again for the backward pass, and the gradients.
    """
    p, hidden = roofline.products(sizes.config), sizes.config.text_config.hidden_size
    return 3 * 2 * tokens * p.chosen * hidden * memory.BYTES[TRAINS] * p.moe_layers


def gathered_bytes(parameters: float) -> float:
    """Bytes that FSDP moves for a micro-batch: weights for the forward and the backward pass, gradients in fp32."""
    return parameters * (2 * memory.BYTES[TRAINS] + _SUMMED)


def expert_break_even(sizes: ModelSizes) -> float:
    """Tokens of a micro-batch on one card for which gathering experts moves as much as exchanging hidden states.

    Below it expert parallelism moves less. Both leave out the same share, which stays on the card.
    """
    p = roofline.products(sizes.config)
    return gathered_bytes(p.moe_layers * p.experts * p.expert) / exchanged_bytes(sizes, 1)


def _learner(sizes: ModelSizes, work: StepWork, shards: int, experts: int) -> dict[str, float]:
    """Bytes of one card: a micro-batch is one longest sequence, with activations computed again."""
    p = roofline.products(sizes.config)
    layer = sizes.largest_unit - p.experts * p.expert * (1 - 1 / experts) if experts > 1 else sizes.largest_unit
    training = memory.Training(
        sizes=replace(sizes, largest_unit=int(layer)),
        dtype=TRAINS,
        optimizer=OptimizerConfig(name="adamw"),
        shards=shards,
        checkpointing=True,
    )
    row = work.longest + work.prompt
    return memory.learner_bytes(training, memory.Workload(tokens=row, predicted=row))


def _traffic(sizes: ModelSizes, work: StepWork, learner: int, shards: int, experts: int) -> float:
    """Seconds in which a card of the learner sends or receives, if it did nothing else."""
    p, row = roofline.products(sizes.config), work.longest + work.prompt
    passes = -(-work.tokens // (row * learner))
    link = NVLINK if shards <= NODE else NETWORK
    gathered = sizes.parameters - (p.moe_layers * p.experts * p.expert if experts > 1 else 0)
    sent = passes * gathered_bytes(gathered) * (1 - 1 / shards)
    if experts > 1:
        sent += passes * exchanged_bytes(sizes, row) * (1 - 1 / experts)
    seconds = sent / link
    if learner > shards:  # replicas add up their gradients once a step
        seconds += 2 * sizes.parameters * _SUMMED / shards / NETWORK
    return seconds


def _split(
    sizes: ModelSizes, gpu: Gpu, work: StepWork, *, cards: int, learner: int, shards: int, experts: int, engine: int
) -> Split:
    p, width = roofline.products(sizes.config), memory.BYTES[TRAINS]
    engines = max(1, (cards if cards == 1 else cards - learner) // engine)
    group = replace(gpu, memory=gpu.memory * engine, flops=gpu.flops * engine, bandwidth=gpu.bandwidth * engine)
    cached = memory.kv_tokens(sizes, TRAINS, group.memory * memory.VLLM_SHARE)
    each = -(-work.completions // engines)
    rows = max(1, min(ROWS, each, cached // (work.prompt // work.samples + work.answer)))
    step = decode_seconds(sizes, rows, rows * work.answer / 2, group, width)
    alone = decode_seconds(sizes, 1, work.answer, group, width)
    return Split(
        cards=cards,
        learner=learner,
        shards=shards,
        experts=experts,
        learner_bytes=memory.total(_learner(sizes, work, shards, experts)),
        engine=engine,
        compute=6.0 * (p.active + p.head) * work.tokens / (gpu.flops * FULL_TRAINING.value * learner),
        traffic=_traffic(sizes, work, learner, shards, experts),
        decode=-(-each // rows) * work.answer * step,
        tail=(work.longest - work.answer) * alone,
        sync=0.0 if cards == 1 else sizes.parameters * width / SYNC,
    )
