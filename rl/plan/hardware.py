"""Devices and measured throughputs that a plan counts with, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import UserError
from configs.text import nearest_or_allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card: its memory as the driver reports it, and the vendor's dense rates."""

    name: str
    memory: float  # bytes
    flops: float  # dense bfloat16 operations a second
    bandwidth: float  # bytes a second


# Rates: NVIDIA's data sheets of H100 SXM, H200 SXM and A100 SXM, dense bfloat16, and the Ada white
# paper of the RTX 4090. Memory: what nvidia-smi reports on these cards (81,559, 143,771, 81,920 and 24,564 MiB).
GPUS = {
    "h100": Gpu(name="H100 80 GB", memory=81_559 * 2**20, flops=989e12, bandwidth=3.35e12),
    "h200": Gpu(name="H200 141 GB", memory=143_771 * 2**20, flops=989e12, bandwidth=4.8e12),
    "a100": Gpu(name="A100 80 GB", memory=81_920 * 2**20, flops=312e12, bandwidth=2.04e12),
    "rtx4090": Gpu(name="RTX 4090 24 GB", memory=24_564 * 2**20, flops=165.2e12, bandwidth=1.008e12),
}
RESERVED = 2e9  # bytes of each card for the CUDA context, NCCL's buffers and fragments; ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of the hardware's peak, or bytes a second, that somebody has measured or that we assume."""

    value: float
    source: str


# Moonlight-16B has this text model: 5,200 tokens a second and GPU x 6 x 2.58 G active parameters = 80 TFLOP/s.
FULL_TRAINING = Rate(value=0.08, source="MFU of NeMo AutoModel's SFT of Moonlight-16B on 8 GPUs, 5,200 tokens/s/GPU")
LORA_TRAINING = Rate(value=0.17, source="MFU of prime-rl's LoRA on a 30B-A3B at 16k tokens, 8 H200")
DECODING = Rate(value=0.3, source="share of the card's bandwidth that decoding reaches; assumed, not measured")
SYNC = Rate(value=3.0e9, source="bytes/s of a weight sync through the object store, docs/benchmarks.md")


def gpu_named(name: str) -> Gpu:
    """A row of the table. Raises UserError for any other name."""
    if name.lower() not in GPUS:
        raise UserError(f"--gpu {name}: unknown{nearest_or_allowed(name.lower(), list(GPUS))}")
    return GPUS[name.lower()]


def peak_flops(name: str) -> float | None:
    """Dense bfloat16 operations a second of a card by its driver's name; None where the table has no such card."""
    name = name.lower()
    if "pcie" in name or "nvl" in name:  # slower than the SXM cards of the table
        return None
    return next((gpu.flops for key, gpu in GPUS.items() if key in name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal nodes of equal cards."""

    gpu: Gpu
    gpus: int  # on each node
    nodes: int = 1

    def __post_init__(self) -> None:
        for flag, value in (("--gpus", self.gpus), ("--nodes", self.nodes)):
            if value < 1:
                raise UserError(f"{flag} {value}: must be 1 or more")

    @property
    def total(self) -> int:
        """Cards of all nodes."""
        return self.gpus * self.nodes
