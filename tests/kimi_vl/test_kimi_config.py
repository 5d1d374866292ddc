"""The config reads and writes the hub's keys, and its defaults are Kimi-VL-A3B's."""

import json

import pytest
from transformers import DeepseekV3Config

from kimi_vl import KimiVLConfig, MoonViTConfig

HUB = {
    "architectures": ["KimiVLForConditionalGeneration"],
    "auto_map": {"AutoConfig": "configuration_kimi_vl.KimiVLConfig"},
    "ignore_index": -100,
    "media_placeholder_token_id": 163605,
    "model_type": "kimi_vl",
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "aux_loss_alpha": 0.001,
        "bos_token_id": 163584,
        "eos_token_id": 163585,
        "ep_size": 1,
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 11264,
        "kv_lora_rank": 512,
        "max_position_embeddings": 131072,
        "model_type": "deepseek_v3",
        "moe_intermediate_size": 1408,
        "moe_layer_freq": 1,
        "n_group": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "norm_topk_prob": True,
        "num_attention_heads": 16,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 27,
        "num_key_value_heads": 16,
        "num_nextn_predict_layers": 0,
        "pad_token_id": 163839,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 800000.0,
        "routed_scaling_factor": 2.446,
        "scoring_func": "sigmoid",
        "seq_aux": True,
        "tie_word_embeddings": False,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "use_cache": True,
        "v_head_dim": 128,
        "vocab_size": 163840,
    },
    "vision_config": {
        "hidden_size": 1152,
        "init_pos_emb_height": 64,
        "init_pos_emb_width": 64,
        "intermediate_size": 4304,
        "merge_kernel_size": [2, 2],
        "model_type": "moonvit",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}
"""config.json of Kimi-VL-A3B, from the fact sheet."""

INERT = {"auto_map", "torch_dtype", "pad_token_id", "architectures"}


def written(config, tmp_path):
    config.save_pretrained(tmp_path)
    return json.loads((tmp_path / "config.json").read_text())


def test_no_arguments_mean_kimi_vl_a3b(tmp_path):
    ours = written(KimiVLConfig(), tmp_path)
    assert {key: ours["text_config"].get(key) for key in HUB["text_config"]} == HUB["text_config"]
    assert {key: ours["vision_config"].get(key) for key in HUB["vision_config"]} == HUB["vision_config"]
    top = {key: value for key, value in HUB.items() if key not in INERT and not key.endswith("_config")}
    assert {key: ours.get(key) for key in top} == top


def test_the_hubs_file_loads_and_comes_back(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HUB))
    config = KimiVLConfig.from_pretrained(tmp_path)
    assert isinstance(config.text_config, DeepseekV3Config)
    assert isinstance(config.vision_config, MoonViTConfig)
    assert config.text_config.rope_parameters == {"rope_type": "default", "rope_theta": 800000.0}
    assert config.pad_token_id == 0
    again = written(config, tmp_path / "again")
    assert {key: again["text_config"].get(key) for key in HUB["text_config"]} == HUB["text_config"]
    assert KimiVLConfig.from_pretrained(tmp_path / "again").to_dict() == config.to_dict()


def test_a_changed_value_survives_the_file(tmp_path):
    given = {"rope_theta": 123.0, "num_nextn_predict_layers": 1, "n_group": 2, "q_lora_rank": 7}
    config = KimiVLConfig(text_config=given, vision_config={"init_pos_emb_height": 8, "init_pos_emb_width": 8})
    config.save_pretrained(tmp_path)
    text = KimiVLConfig.from_pretrained(tmp_path).text_config
    assert (text.rope_parameters["rope_theta"], text.num_mtp_layers, text.n_group, text.q_lora_rank) == (123.0, 1, 2, 7)
    assert KimiVLConfig.from_pretrained(tmp_path).vision_config.pos_emb_height == 8


def test_a_missing_key_means_kimi_vls_value_not_deepseeks():
    text = KimiVLConfig(text_config={"num_hidden_layers": 3}).text_config
    assert (text.num_hidden_layers, text.hidden_size, text.n_group, text.q_lora_rank) == (3, 2048, 1, None)


def test_the_two_names_of_an_id_are_one():
    config = KimiVLConfig(media_placeholder_token_id=7)
    assert config.image_token_id == 7
    config.image_token_id = 9
    assert config.media_placeholder_token_id == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"init_pos_emb_height": 8}, "init_pos_emb_height=8 and init_pos_emb_width=64 differ"),
        ({"hidden_size": 40, "num_attention_heads": 4}, "multiple of 4 channels"),
    ],
)
def test_impossible_vision_sizes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MoonViTConfig(**values)
