"""The exported folder works where our packages do not exist: the model card's snippet, in an interpreter of its own."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from kimi_helpers import picture
from safetensors.torch import load_file

from kimi_vl import export, load_model, load_processor, save_with_code

SNIPPET = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor

model_path, image_path = sys.argv[2:4]
model = AutoModelForCausalLM.from_pretrained(
    model_path,
    torch_dtype="auto",
    device_map="auto",
    trust_remote_code=True,
)
processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=True)

image = Image.open(image_path)
messages = [
    {"role": "user", "content": [{"type": "image", "image": image_path}, {"type": "text", "text": "What is 1 + 2?"}]}
]
text = processor.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
inputs = processor(images=image, text=text, return_tensors="pt", padding=True, truncation=True).to(model.device)
generated_ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)
generated_ids_trimmed = [out_ids[len(in_ids) :] for in_ids, out_ids in zip(inputs.input_ids, generated_ids)]
response = processor.batch_decode(
    generated_ids_trimmed, skip_special_tokens=True, clean_up_tokenization_spaces=False
)[0]

def rows(pictures, **options):
    # the new tokens of prompts with unlike images, generated together
    media = "<|media_start|>image<|media_content|><|media_pad|><|media_end|>"
    texts = [media * len(own) + "1 + 2" for own in pictures]
    batch = processor(images=pictures if any(pictures) else None, text=texts, return_tensors="pt", padding=True)
    found = model.generate(**batch, max_new_tokens=4, do_sample=False, **options)
    return found[:, batch["input_ids"].shape[1]:].tolist()

sets = [[image, image.rotate(90, expand=True)], [], [image.resize((56, 56))]]
beams = [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 3}]
together = [rows(sets, **options) for options in beams]
alone = [[tokens for own in sets for tokens in rows([own], **options)] for options in beams]
ours = [name for name in ("kimi_vl", "tiktoken", "trl", "datasets", "ray", "pydantic") if name in sys.modules]
model.save_pretrained(sys.argv[4])
again = sys.argv[4] + "-again"
model.save_pretrained(again)
processor.save_pretrained(again)
reopened = AutoProcessor.from_pretrained(again, trust_remote_code=True)
same = reopened(images=image, text=text, return_tensors="pt", padding=True)
remodel = AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True).to(model.device)
print(json.dumps({
    "response": response,
    "ids": generated_ids_trimmed[0].tolist(),
    "logits": model(**inputs).logits[0, -1].tolist(),
    "modules": [type(model).__module__, type(processor).__module__],
    "ours": ours,
    "stops": model.generation_config.eos_token_id,
    "same_beams": together == alone,
    "same_inputs": same["input_ids"].tolist() == inputs["input_ids"].tolist(),
    "same_logits": torch.equal(remodel(**inputs).logits, model(**inputs).logits),
}))
"""


def closure(*names):
    """The installed distributions that these need, by name."""
    found, queue = set(), list(names)
    while queue:
        name = re.split(r"[\s\[\](<>=!~;]", queue.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # an optional dependency, or one for another system
        found.add(name)
        queue += [need for need in distribution.requires or [] if "extra ==" not in need]
    return found


@pytest.fixture(scope="module")
def clean_site(tmp_path_factory):
    """A folder of packages that holds torch, transformers, accelerate, Pillow and what they need, and nothing else."""
    site = tmp_path_factory.mktemp("site")
    for name in closure("torch", "transformers", "accelerate", "pillow"):
        for file in metadata.distribution(name).files or []:
            top = file.parts[0]
            target = Path(metadata.distribution(name).locate_file(top))
            if top not in ("..", "__pycache__", "bin") and not (site / top).exists() and target.exists():
                (site / top).symlink_to(target)
    assert not (site / "tiktoken").exists()
    assert not (site / "trl").exists()
    return site


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "Kimi-VL tiny.v1"
    return save_with_code(load_model(folder), load_processor(folder), path)


@pytest.fixture(scope="module")
def elsewhere(exported, clean_site, tmp_path_factory):
    """What the snippet prints, run from another folder, without site packages, home or cache of ours."""
    home = tmp_path_factory.mktemp("home")
    picture(90, 40).save(home / "demo.png")
    (home / "snippet.py").write_text(SNIPPET)
    arguments = [str(home / "snippet.py"), str(clean_site), str(exported), str(home / "demo.png"), str(home / "saved")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-I", "-S", *arguments], cwd=home, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return {**json.loads(run.stdout.splitlines()[-1]), "home": home}


def test_the_snippet_runs_without_our_packages(elsewhere):
    assert elsewhere["ours"] == []
    assert all(module.startswith("transformers_modules.") for module in elsewhere["modules"])


def test_it_computes_what_we_compute(elsewhere, exported, model, processor):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is 1 + 2?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=picture(90, 40), text=text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    assert (logits - torch.tensor(elsewhere["logits"])).abs().max() < 1e-5
    ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert ids[0].tolist() == elsewhere["ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True)[0] == elsewhere["response"]
    assert elsewhere["stops"] == [processor.tokenizer.convert_tokens_to_ids(t) for t in export.STOP_TOKENS]
    assert elsewhere["same_beams"], "each row keeps its own images"
    assert elsewhere["same_inputs"], "a processor that was saved again opens"
    assert elsewhere["same_logits"], "a model that was saved again opens"


def test_saving_there_gives_the_hubs_names(elsewhere, tensors):
    saved = load_file(elsewhere["home"] / "saved" / "model.safetensors")
    assert saved.keys() == tensors.keys()
    assert all(torch.equal(saved[name], tensors[name]) for name in tensors)


def test_the_folder_holds_every_file(exported, processor):
    names = {path.name for path in exported.iterdir()}
    assert names == {
        *export.CODE_FILES,
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tiktoken.model",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    generation = json.loads((exported / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [processor.tokenizer.convert_tokens_to_ids(t) for t in export.STOP_TOKENS]
    assert "_from_model_config" not in generation  # or transformers may take the stop ids from config.json instead
    config = json.loads((exported / "config.json").read_text())
    assert config["model_type"] == "kimi_vl"
    assert config["architectures"] == ["KimiVLForConditionalGeneration"]
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_kimi_vl.KimiVLForConditionalGeneration"


def test_the_code_needs_only_what_it_brings(exported):
    """Relative imports name files of the folder, absolute ones libraries of the clean environment."""
    for name in export.CODE_FILES:
        text = (exported / name).read_text()
        for module in re.findall(r"^from \.(\w+) import", text, re.MULTILINE):
            assert f"{module}.py" in export.CODE_FILES
        for module in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE):
            known = {"torch", "transformers", "tokenizers", "numpy", "PIL"}
            assert module in known or module in sys.stdlib_module_names


def test_weights_can_be_replaced_and_sharded(model, processor, tmp_path):
    other = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    export.save_checkpoint(model, processor, tmp_path, state_dict=other, max_shard_size="1MB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = load_model(tmp_path)
    assert all(not parameter.any() for parameter in again.parameters())
