"""The tokenizer equals the tiktoken library, on random text of many scripts."""

import base64
import json
import random

import pytest
import tiktoken
from kimi_helpers import sums
from transformers import AutoTokenizer

from kimi_vl import KimiVLTokenizer, load_tokenizer
from kimi_vl.configuration_kimi_vl import SPECIAL_BASE_ID
from kimi_vl.tiny import train_bpe
from kimi_vl.tokenization_kimi_vl import NUM_RESERVED, read_ranks, special_tokens, write_ranks

# The pattern as the hub's tokenization file has it, written out again.
PATTERN = "|".join(
    [
        r"""[\p{Han}]+""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    ]
)

PROSE = [
    "The quick brown fox doesn't jump; it'll THINK'S they've I'M we'd.",
    "快速的棕色狐狸跳过了懒狗。三加四等于七,所以答案是7。",
    "القط السريع يقفز فوق الكلب الكسول ٣ + ٤ = ٧",
    "Быстрая коричневая лиса прыгает через ленивую собаку",
    "すばやい茶色の狐がのろまな犬を飛び越える。カタカナ",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है १२३",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดด",
    "η γρήγορη καφέ αλεπού πηδάει ǅ ǈ ʰʷ",
    "השועל החום המהיר קופץ",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇳 ❤️ 🤔💭",
    "é à ñ ü z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "∑ ∫ √2 ≤ ½ ² Ⅷ ① 1,234.5e-6 0x1F 100000 1234567890",
    "def f(x):\n\treturn x  # comment\r\n\r\n    pass\n\n\n",
    "◁think▷ reasoning ◁/think▷ answer",
    'https://example.org/a_b?c=d&e=%20#f <html>&nbsp;</html> {"k": [1, 2]}',
]

SPACES = [" ", "  ", "\t", "\n", "\r\n", "\n\n", "   \n", " \n ", " ", " ", "​", "　", "\v", "\f", "\x85", "\r"]
LOOKALIKES = [
    "<|im_end|",
    "|im_end|>",
    "<|im_end |>",
    "< |im_end|>",
    "[EOS",
    "EOS]",
    "[eos]",
    "<|media_pad|",
    "<||>",
    "<|",
]


@pytest.fixture(scope="module")
def ranks():
    """Merges learned from the prose and from runs of few letters, where ties between splits are common.

    The last tokens no merge can reach, or only across what the pattern keeps together: a wrong shortcut shows there.
    """
    rng = random.Random(5)
    few = ["".join(rng.choices("ab", k=12)) for _ in range(300)]
    learned = train_bpe([*(PROSE * 4), *sums(100), *few, *LOOKALIKES], 1200)
    return [*learned, b"qxz", b"T'", b"T'S", b"t'", b"t's", b"M'Ll"]


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory, ranks):
    """What a hub folder holds: ranks, and a config that names the hub's own tokenizer class and code."""
    folder = tmp_path_factory.mktemp("hub")
    write_ranks(folder / "tiktoken.model", ranks)
    base = len(ranks)
    named = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 10: "<|im_system|>"}
    named |= {
        17: "<|im_middle|>",
        18: "<|media_start|>",
        21: "<|media_pad|>",
        30: "<|own_name|>",
        254: "[UNK]",
        255: "[PAD]",
    }
    config = {
        "added_tokens_decoder": {
            str(base + slot): {
                "content": name,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for slot, name in named.items()
        },
        "auto_map": {"AutoTokenizer": ["tokenization_moonshot.TikTokenTokenizer", None]},
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "model_max_length": 1000,
        "tokenizer_class": "TikTokenTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "kimi_vl"}))
    return folder


@pytest.fixture(scope="module")
def tokenizer(hub_folder):
    return load_tokenizer(hub_folder)


@pytest.fixture(scope="module")
def truth(hub_folder, tokenizer):
    """tiktoken reading the same file in its own way."""
    lines = (hub_folder / "tiktoken.model").read_bytes().splitlines()
    mergeable = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    special = {token: index for token, index in tokenizer.get_vocab().items() if index >= len(mergeable)}
    assert len(special) == NUM_RESERVED
    return tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=mergeable, special_tokens=special)


def fuzzed(count, seed):
    rng = random.Random(seed)
    specials = [
        "<|im_end|>",
        "[EOS]",
        "<|media_pad|>",
        "<|im_user|>",
        "<|own_name|>",
        "[PAD]",
        "<|reserved_token_1234|>",
    ]
    planes = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F)]
    planes += [
        (0xE00, 0xE7F),
        (0x2000, 0x2BFF),
        (0x3040, 0x30FF),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A3),
        (0x1F300, 0x1FAFF),
    ]
    planes += [(0x0, 0x1F), (0x20000, 0x2A6DF), (0xE000, 0xE0FF), (0xFFF0, 0xFFFD), (0x10000, 0x10FFF)]
    words = ["qxz", " qxz", "qxzq", "IT'S", "it's", "AM'Ll", "don't'S", "T'S"]
    for _ in range(count):
        parts = [rng.choice(words)] if rng.random() < 0.1 else []
        for _ in range(rng.randrange(1, 12)):
            kind = rng.randrange(8)
            if kind < 2:
                prose = rng.choice(PROSE)
                start = rng.randrange(len(prose))
                parts.append(prose[start : start + rng.randrange(1, 20)])
            elif kind == 2:
                parts.append("".join(rng.choices(SPACES, k=rng.randrange(1, 5))))
            elif kind == 3:
                parts.append(rng.choice([*LOOKALIKES, *specials]))
            elif kind == 4:
                parts.append("".join(rng.choices("0123456789٣٤१२½²Ⅷ", k=rng.randrange(1, 8))))
            elif kind == 5:
                parts.append("".join(rng.choices("ab", k=rng.randrange(1, 20))))
            else:
                low, high = rng.choice(planes)
                parts.append("".join(chr(rng.randrange(low, high + 1)) for _ in range(rng.randrange(1, 6))))
        yield "".join(parts)


def test_equals_tiktoken_on_fuzzed_text(tokenizer, truth):
    texts = [*PROSE, "", *fuzzed(6000, seed=0)]
    ours = tokenizer(texts)["input_ids"]
    theirs = [truth.encode(text, allowed_special="all") for text in texts]
    wrong = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    assert wrong == []
    assert len({token for row in theirs for token in row}) > 1000  # the text did use merges


def test_decoding_gives_the_text_back(tokenizer, truth):
    texts = [*PROSE, *fuzzed(1500, seed=1)]
    ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(ids) == texts
    broken = [[rank] for rank in range(128, 256)] + [[230, 151], [255, 10]]
    assert tokenizer.batch_decode(broken) == [truth.decode(row) for row in broken]


def test_special_ids_follow_the_ranks_in_the_hubs_order(tokenizer, ranks):
    wanted = {
        "[BOS]": 0,
        "[EOS]": 1,
        "<|im_end|>": 2,
        "<|im_user|>": 3,
        "<|im_assistant|>": 4,
        "<|start_header_id|>": 6,
    }
    wanted |= {"<|end_header_id|>": 7, "[EOT]": 9, "<|im_system|>": 10, "<|im_middle|>": 17, "<|media_start|>": 18}
    wanted |= {"<|media_content|>": 19, "<|media_end|>": 20, "<|media_pad|>": 21, "[UNK]": 254, "[PAD]": 255}
    base = len(ranks)
    assert {token: tokenizer.convert_tokens_to_ids(token) - base for token in wanted} == wanted
    assert tokenizer.convert_ids_to_tokens(base + 5) == f"<|reserved_token_{base + 5}|>"
    assert tokenizer.convert_ids_to_tokens(base + 30) == "<|own_name|>"  # the folder's names come first
    assert len(tokenizer) == base + 256
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("[BOS]", "[EOS]", "[PAD]")


def test_kimi_vls_own_ids():
    """163,584 ranks and 256 reserved slots, with the special ids of Kimi-VL."""
    names = {SPECIAL_BASE_ID + slot: name for slot, name in enumerate(special_tokens(SPECIAL_BASE_ID))}
    wanted = {163584: "[BOS]", 163585: "[EOS]", 163586: "<|im_end|>", 163594: "<|im_system|>", 163601: "<|im_middle|>"}
    wanted |= {163602: "<|media_start|>", 163604: "<|media_end|>", 163605: "<|media_pad|>", 163838: "[UNK]"}
    assert {key: names[key] for key in wanted} == wanted
    assert names[163839] == "[PAD]"
    assert len(set(names.values())) == 256


def test_skipping_special_tokens_leaves_only_the_answer(tokenizer):
    ids = tokenizer("<|media_start|><|media_pad|>yes<|im_end|>[PAD]")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "yes"


def test_saving_and_loading_changes_nothing(tokenizer, hub_folder, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tiktoken.model").read_bytes() == (hub_folder / "tiktoken.model").read_bytes()
    texts = list(fuzzed(300, seed=2))
    wanted = tokenizer(texts)["input_ids"]
    assert load_tokenizer(tmp_path)(texts)["input_ids"] == wanted
    assert AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"] == wanted
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path)(texts)["input_ids"] == wanted


@pytest.mark.parametrize("trust", [None, False, True])
def test_the_auto_class_prefers_our_code_to_the_hubs(hub_folder, tokenizer, trust):
    """The hub's Python file is not there: running it would fail."""
    loaded = AutoTokenizer.from_pretrained(hub_folder, trust_remote_code=trust)
    assert isinstance(loaded, KimiVLTokenizer)
    assert loaded("What is 1234 快速?")["input_ids"] == tokenizer("What is 1234 快速?")["input_ids"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"IQ== 0\nIg==\n", "line 2: expected a base64 token and its rank"),
        (b"IQ== 0\n!!!! 1\n", "line 2: expected a base64 token"),
        (b"IQ== 0\nIg== 2\n", "without gaps"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, lines, message):
    (tmp_path / "tiktoken.model").write_bytes(lines)
    with pytest.raises(ValueError, match=message):
        read_ranks(tmp_path / "tiktoken.model")


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((OSError, ValueError), match=r"tiktoken\.model"):
        load_tokenizer(tmp_path)
