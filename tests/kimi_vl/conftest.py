"""A tiny checkpoint whose weights are all random, norms and biases too, so that no term of the model can hide."""

import pytest
import torch
from kimi_helpers import SMALL, picture, sums
from safetensors.torch import load_file, save_file

from kimi_vl import create_tiny_checkpoint, load_model, load_processor


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = create_tiny_checkpoint(tmp_path_factory.mktemp("kimi") / "tiny", corpus=sums(), sizes=SMALL)
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(path / "model.safetensors")
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if "pos_emb" in name:
            tensors[name] = noise
        elif "e_score_correction_bias" in name:
            tensors[name] = 0.5 * noise  # enough to change which experts are chosen
        elif tensor.ndim == 1:
            tensors[name] = tensor + 0.3 * noise
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture(scope="session")
def tensors(folder):
    """The checkpoint's tensors under the hub's names, read from the file."""
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="session")
def model(folder):
    return load_model(folder)


@pytest.fixture(scope="session")
def processor(folder):
    return load_processor(folder)


@pytest.fixture(scope="session")
def prompt(processor):
    """Two rows of unlike length with one and two images: ready for the model, padded on the left."""
    rows = [
        [{"type": "image"}, {"type": "text", "text": "What is this?"}],
        [
            {"type": "text", "text": "Compare "},
            {"type": "image"},
            {"type": "image"},
            {"type": "text", "text": " 1 + 2"},
        ],
    ]
    texts = [
        processor.apply_chat_template([{"role": "user", "content": row}], add_generation_prompt=True) for row in rows
    ]
    images = [[picture(90, 40, 1)], [picture(28, 56, 2), picture(140, 30, 3)]]
    return processor(images=images, text=texts, return_tensors="pt", padding=True)
