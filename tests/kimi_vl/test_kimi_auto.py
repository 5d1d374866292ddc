"""After `import kimi_vl`, transformers' auto classes open a Kimi-VL folder."""

import json
import subprocess
import sys

import pytest
import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor

import kimi_vl
from kimi_vl import export


@pytest.mark.parametrize(
    ("auto", "ours"),
    [
        ("AutoConfig", "KimiVLConfig"),
        ("AutoImageProcessor", "KimiVLImageProcessor"),
        ("AutoProcessor", "KimiVLProcessor"),
        ("AutoModel", "KimiVLModel"),
        ("AutoModelForCausalLM", "KimiVLForConditionalGeneration"),
        ("AutoModelForImageTextToText", "KimiVLForConditionalGeneration"),
    ],
)
def test_auto_classes_give_ours(folder, auto, ours):
    opened = getattr(transformers, auto).from_pretrained(folder)
    assert type(opened) is getattr(kimi_vl, ours)


def test_ours_are_preferred_to_the_code_in_the_folder(model, processor, tmp_path):
    """A hub folder's own code was written for transformers 4: opening it must not run it."""
    export.save_with_code(model, processor, tmp_path)
    for name in export.CODE_FILES:
        (tmp_path / name).write_text("raise RuntimeError('the code of the folder ran')\n")
    for auto in (AutoConfig, AutoImageProcessor, AutoProcessor, AutoModel, AutoModelForImageTextToText):
        opened = auto.from_pretrained(tmp_path, trust_remote_code=True)
        assert type(opened).__module__.startswith("kimi_vl."), auto


def test_importing_brings_no_heavy_package():
    heavy = ["ray", "trl", "datasets", "pydantic", "torchvision", "tiktoken"]
    code = f"import sys, json, kimi_vl; print(json.dumps([n for n in {heavy} if n in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout.splitlines()[-1]) == []
