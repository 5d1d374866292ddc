"""A tiny checkpoint with the files of the hub's Kimi-VL repositories: names, keys and formats are theirs."""

import json
from dataclasses import replace

from safetensors.torch import load_file, save_file
from vllm_helpers import SIZES, build_plain

from kimi_vl import load_processor

LONG = replace(SIZES, max_position_embeddings=8192, in_token_limit=16_384)
CODE = {
    "configuration_kimi_vl.py": "KimiVLConfig",
    "modeling_kimi_vl.py": "KimiVLForConditionalGeneration",
    "image_processing_kimi_vl.py": "KimiVLImageProcessor",
    "processing_kimi_vl.py": "KimiVLProcessor",
    "tokenization_moonshot.py": "TikTokenTokenizer",
}
_TEXT = (
    *("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "moe_intermediate_size"),
    *("num_hidden_layers", "n_shared_experts", "n_routed_experts", "routed_scaling_factor", "kv_lora_rank"),
    *("q_lora_rank", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim", "n_group", "topk_group"),
    *("num_experts_per_tok", "first_k_dense_replace", "norm_topk_prob", "num_key_value_heads", "hidden_act"),
    *("initializer_range", "rms_norm_eps", "attention_bias", "attention_dropout", "num_attention_heads"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_VISION = (
    *("patch_size", "init_pos_emb_height", "init_pos_emb_width", "num_attention_heads", "num_hidden_layers"),
    *("hidden_size", "intermediate_size", "merge_kernel_size"),
)


def build_hub_folder(folder):
    """Two shards with an index, `config.json` in transformers 4's words, `tiktoken.model`, and code that must not run.

    Its special tokens have the slots of the hub's.
    """
    build_plain(folder, LONG)
    processor = load_processor(folder)
    _shard(folder)
    _write(folder / "config.json", _config(json.loads((folder / "config.json").read_text())))
    images = json.loads((folder / "preprocessor_config.json").read_text())
    kept = {k: images[k] for k in ("in_token_limit", "patch_size", "image_mean", "image_std", "merge_kernel_size")}
    auto = {
        "AutoImageProcessor": "image_processing_kimi_vl.KimiVLImageProcessor",
        "AutoProcessor": "processing_kimi_vl.KimiVLProcessor",
    }
    own = {
        "auto_map": auto,
        "num_pooled_tokens": 1024,
        "pad_input": True,
        "image_processor_type": CODE["image_processing_kimi_vl.py"],
    }
    _write(folder / "preprocessor_config.json", kept | own)
    _write(folder / "tokenizer_config.json", _tokenizer(processor.tokenizer))
    (folder / "tokenizer.json").unlink()
    for name, cls in CODE.items():
        (folder / name).write_text(f"raise RuntimeError('code of a model folder was run')\n\n\nclass {cls}: ...\n")
    return folder


def _shard(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {f"model-{i + 1:05d}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file, metadata={"format": "pt"})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": {n: file for file, own in parts.items() for n in own}}
    _write(folder / "model.safetensors.index.json", index)


def _config(ours):
    text, vision = ours["text_config"], ours["vision_config"]
    theta = text.get("rope_theta") or text["rope_parameters"]["rope_theta"]
    return {
        "architectures": ["KimiVLForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": "configuration_kimi_vl.KimiVLConfig",
            "AutoModel": "modeling_kimi_vl.KimiVLForConditionalGeneration",
            "AutoModelForCausalLM": "modeling_kimi_vl.KimiVLForConditionalGeneration",
        },
        "ignore_index": -100,
        "media_placeholder_token_id": ours["media_placeholder_token_id"],
        "model_type": "kimi_vl",
        "text_config": {key: text[key] for key in _TEXT if key in text}
        | {
            "model_type": "deepseek_v3",
            "rope_theta": theta,
            "rope_scaling": None,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "moe_layer_freq": 1,
            "ep_size": 1,
            "aux_loss_alpha": 0.001,
            "seq_aux": True,
            "num_nextn_predict_layers": 0,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.3",
        "vision_config": {key: vision[key] for key in _VISION if key in vision}
        | {"model_type": "moonvit", "torch_dtype": "bfloat16"},
    }


def _tokenizer(tokenizer):
    named = {str(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "added_tokens_decoder": {i: {"content": name} | plain for i, name in named.items()},
        "additional_special_tokens": [name for name in named.values() if name.startswith("<|im_")],
        "auto_map": {"AutoTokenizer": ["tokenization_moonshot.TikTokenTokenizer", None]},
        **{key: getattr(tokenizer, key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")},
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {},
        "model_max_length": 1048576,
        "tokenizer_class": "TikTokenTokenizer",
    }


def _write(path, content):
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False))
