"""The Kimi tokenizer, read from a hub folder's `tiktoken.model` without running the hub's code.

The file holds byte-level BPE ranks (a base64 token and its rank a line); 256 reserved slots follow them. The result is
an ordinary fast tokenizer of transformers, which any program loads from the `tokenizer.json` that it saves.

Source: `tokenization_moonshot.py` and `tokenizer_config.json` of the Kimi-VL and Moonlight checkpoints.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

NUM_RESERVED = 256
"""Slots for special tokens after the BPE ranks."""

SPECIAL_TOKENS: dict[int, str] = {
    0: "[BOS]",
    1: "[EOS]",
    2: "<|im_end|>",
    3: "<|im_user|>",
    4: "<|im_assistant|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "[EOT]",
    10: "<|im_system|>",
    11: "<|tool_calls_section_begin|>",
    12: "<|tool_calls_section_end|>",
    13: "<|tool_call_begin|>",
    14: "<|tool_call_argument_begin|>",
    15: "<|tool_call_end|>",
    17: "<|im_middle|>",
    18: "<|media_start|>",
    19: "<|media_content|>",
    20: "<|media_end|>",
    21: "<|media_pad|>",
    254: "[UNK]",
    255: "[PAD]",
}
"""Slot to token, where slot 0 is the first id after the BPE ranks (163584 for Kimi-VL)."""

_HAN = r"[\p{Han}]+"
_NOT_LETTER = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    [
        _HAN,
        f"{_NOT_LETTER}{_UPPER}*{_LOWER}+{_CONTRACTION}",
        f"{_NOT_LETTER}{_UPPER}+{_LOWER}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
"""How text is cut into pieces before BPE; the same in every tokenizer of the Kimi family."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>' }}
{%- endif -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{ raise_exception('unknown role ' ~ message['role'] ~ ': Kimi-VL knows system, user and assistant') }}
{%- endif -%}
{{ '<|im_' ~ message['role'] ~ '|>' ~ message['role'] ~ '<|im_middle|>' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for item in message['content'] -%}
{%- if item['type'] in ['image', 'image_url'] -%}
{{ '<|media_start|>image<|media_content|><|media_pad|><|media_end|>' }}
{%- elif item['type'] == 'text' -%}
{{ item['text'] }}
{%- else -%}
{{ raise_exception('unknown content type ' ~ item['type'] ~ ': Kimi-VL knows image and text') }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_assistant|>assistant<|im_middle|>' }}
{%- endif -%}
"""
"""ChatML with Kimi's marks: no newlines, no BOS; a default system message where the conversation brings none."""


def special_tokens(base: int, named: Mapping[int, str] = {}) -> list[str]:
    """The 256 reserved tokens in order of id; `base` is the first id, `named` overrides names by id."""
    return [
        named.get(base + slot) or SPECIAL_TOKENS.get(slot, f"<|reserved_token_{base + slot}|>")
        for slot in range(NUM_RESERVED)
    ]


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a `tiktoken.model` in order of rank. Raises ValueError where a line or a rank is not right."""
    ranks: dict[int, bytes] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[int(rank)] = base64.b64decode(token, validate=True)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected a base64 token and its rank, got {line!r}") from error
    if sorted(ranks) != list(range(len(ranks))):
        raise ValueError(f"{path}: ranks must be 0 to {len(ranks) - 1} without gaps; download the file again")
    return [ranks[rank] for rank in range(len(ranks))]


def write_ranks(path: Path, tokens: Iterable[bytes]) -> None:
    """Write tokens in order of rank as a `tiktoken.model`."""
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    path.write_bytes(b"".join(lines))


def build_backend(tokens: list[bytes], named: Mapping[int, str] = {}) -> Tokenizer:
    """BPE ranks to a fast tokenizer, special tokens after them. `named` gives names of special tokens by id."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges: list[tuple[str, str]] = []
    for token in tokens:
        # tiktoken joins any two neighbours whose join has the lowest rank, however that token was learned; listing
        # every split of a token, in order of rank, makes merge-list BPE do the same.
        cuts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        cuts = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        cuts.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [(visible_text(left), visible_text(right)) for left, right in cuts]
    vocab = {visible_text(token): rank for token, rank in ranks.items()}
    backend = Tokenizer(models.BPE(vocab, merges, fuse_unk=False, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    names = special_tokens(len(tokens), named)
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    return backend


def backend_ranks(backend: Tokenizer) -> list[bytes]:
    """The BPE tokens of a fast tokenizer in order of rank: `build_backend` undone."""
    vocab = backend.get_vocab(with_added_tokens=False)
    return [raw_bytes(token) for token in sorted(vocab, key=lambda token: vocab[token])]


class KimiVLTokenizer(PreTrainedTokenizerFast):
    """Loads a hub folder (`tiktoken.model`) or one that was saved here (`tokenizer.json`); saves both files."""

    vocab_files_names = {"vocab_file": "tiktoken.model", "tokenizer_file": "tokenizer.json"}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        vocab_file: str | None = None,
        tokenizer_file: str | None = None,
        tokenizer_object: Tokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        if tokenizer_object is None and tokenizer_file is not None:
            tokenizer_object = Tokenizer.from_file(tokenizer_file)
        if tokenizer_object is None:
            if vocab_file is None:
                raise ValueError("no tiktoken.model and no tokenizer.json: pass the folder of a Kimi-VL checkpoint")
            named = {int(key): str(value) for key, value in (kwargs.get("added_tokens_decoder") or {}).items()}
            tokenizer_object = build_backend(read_ranks(Path(vocab_file)), named)
        kwargs["chat_template"] = kwargs.get("chat_template") or CHAT_TEMPLATE
        for name, token in {"bos": "[BOS]", "eos": "[EOS]", "unk": "[UNK]", "pad": "[PAD]"}.items():
            kwargs.setdefault(f"{name}_token", token)
        kwargs.setdefault("padding_side", "left")  # what generation needs; trainers set the right side
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(tokenizer_object=tokenizer_object, **kwargs)

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Leave the files to the constructor: transformers would read `tiktoken.model` with another pattern."""
        del trust_remote_code
        return kwargs

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write `tiktoken.model` from the ranks in memory."""
        path = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}tiktoken.model"
        write_ranks(path, backend_ranks(self.backend_tokenizer))
        return (str(path),)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> tuple[str, ...]:
        """Write `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and `tiktoken.model`.

        The config names transformers' own fast tokenizer, so that every program can load the folder without our code.
        """
        files = super().save_pretrained(str(save_directory), **kwargs)
        config = Path(save_directory) / "tokenizer_config.json"
        content = json.loads(config.read_text(encoding="utf-8"))
        content["tokenizer_class"] = "PreTrainedTokenizerFast"
        # tiktoken.model holds no names: with these, it alone gives the same tokenizer back.
        content["added_tokens_decoder"] = {
            str(index): {"content": token.content, "special": token.special, "normalized": token.normalized}
            for index, token in sorted(self.added_tokens_decoder.items())
        }
        config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return (*files, *self.save_vocabulary(str(save_directory)))


class TikTokenTokenizer(KimiVLTokenizer):
    """The same under the name in the hub's tokenizer_config.json."""


def _byte_table() -> dict[int, str]:
    # GPT-2's printable stand-ins for bytes, which the byte-level parts of `tokenizers` use.
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + rank) for rank, byte in enumerate(hidden)}


_VISIBLE = _byte_table()
_RAW = {char: byte for byte, char in _VISIBLE.items()}


def visible_text(token: bytes) -> str:
    """A token as byte-level BPE spells it: every byte one printable character."""
    return "".join(_VISIBLE[byte] for byte in token)


def raw_bytes(token: str) -> bytes:
    """The bytes that a token of byte-level BPE spells."""
    return bytes(_RAW[char] for char in token)


__all__ = ["KimiVLTokenizer", "TikTokenTokenizer"]
