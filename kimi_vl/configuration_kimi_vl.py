"""Kimi-VL's config: sizes of the text model (DeepSeek-V3) and of the vision tower (MoonViT), and special token ids.

`KimiVLConfig()` without arguments is Kimi-VL-A3B: 16.4 B parameters, of which 2.8 B are active for a token. Keys are
read and written under the hub's names (`media_placeholder_token_id`, `init_pos_emb_height`, `rope_theta`, ...), so that
other programs that know the hub's config.json read ours.

Source: Kimi-VL technical report (arXiv:2504.07491) section 2.1; Moonlight (arXiv:2502.16982) for the text model.
"""

from typing import Any, ClassVar

from transformers import DeepseekV3Config, PreTrainedConfig

SPECIAL_BASE_ID = 163584
"""First id of the 256 reserved slots that follow the BPE ranks in Kimi-VL's vocabulary."""

TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 163840,
    "hidden_size": 2048,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "max_position_embeddings": 131072,
    "rope_theta": 800000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 1408,
    "intermediate_size": 11264,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.446,
    "num_nextn_predict_layers": 0,
    "bos_token_id": 163584,
    "eos_token_id": 163585,
    "pad_token_id": 163839,
    "tie_word_embeddings": False,
    # Fixed by transformers' DeepSeek-V3, but vLLM and SGLang read them from the file to choose the same router.
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "aux_loss_alpha": 0.001,
    "seq_aux": True,
    "ep_size": 1,
}
"""`text_config` of Kimi-VL-A3B: every value that differs from DeepSeek-V3's class defaults, under the hub's key."""


class MoonViTConfig(PreTrainedConfig):
    """The vision tower: a native-resolution ViT over 14 x 14 patches with 2-D rotary positions.

    `init_pos_emb_height` x `init_pos_emb_width` is the learned position table, resampled to each image's grid;
    `merge_kernel_size` patches become one token of the text model. The defaults are Kimi-VL-A3B's.
    """

    model_type = "moonvit"
    base_config_key = "vision_config"
    default_rope_type = "axial"
    attribute_map = {"pos_emb_height": "init_pos_emb_height", "pos_emb_width": "init_pos_emb_width"}  # noqa: RUF012

    patch_size: int = 14
    init_pos_emb_height: int = 64
    init_pos_emb_width: int = 64
    num_attention_heads: int = 16
    num_hidden_layers: int = 27
    hidden_size: int = 1152
    intermediate_size: int = 4304
    merge_kernel_size: tuple[int, int] | list[int] = (2, 2)
    hidden_act: str = "gelu_pytorch_tanh"
    initializer_range: float = 0.02
    pos_emb_time: int = 1
    rope_parameters: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.rope_parameters = self.rope_parameters or {"rope_type": "axial", "rope_theta": 10000.0}
        down, across = self.merge_kernel_size
        self.merge_kernel_size = (down, across)
        super().__post_init__(**kwargs)
        if self.init_pos_emb_height != self.init_pos_emb_width:
            raise ValueError(
                f"init_pos_emb_height={self.init_pos_emb_height} and init_pos_emb_width={self.init_pos_emb_width} "
                "differ: the position table must be square"
            )
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"vision hidden_size={self.hidden_size} with num_attention_heads={self.num_attention_heads}: a head "
                "needs a multiple of 4 channels, two rotated by the column and two by the row"
            )

    def to_dict(self) -> dict[str, Any]:
        """The hub's keys only, without values that follow from the architecture."""
        output = super().to_dict()
        for key in ("rope_parameters", "pos_emb_time"):
            output.pop(key, None)
        return output


class KimiVLConfig(PreTrainedConfig):
    """The config of a Kimi-VL: text model, vision tower and token ids.

    `text_config` and `vision_config` are given as configs, as dicts (a missing key means Kimi-VL-A3B's value) or not at
    all, and kept as a DeepseekV3Config and a MoonViTConfig.
    """

    model_type = "kimi_vl"
    # Two names: transformers renamed the attribute between 5.17 and 5.23, and reads it while the class is made.
    sub_configs: ClassVar[Any] = {"text_config": DeepseekV3Config, "vision_config": MoonViTConfig}
    sub_configs_defaults: ClassVar[Any] = {"text_config": DeepseekV3Config, "vision_config": MoonViTConfig}
    attribute_map = {"image_token_id": "media_placeholder_token_id"}  # noqa: RUF012

    text_config: Any = None
    vision_config: Any = None
    media_placeholder_token_id: int = 163605
    ignore_index: int = -100
    projection_layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int | None = 163839
    bos_token_id: int | None = 163584
    eos_token_id: int | list[int] | None = 163585
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = _text_config(self.text_config or {})
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = MoonViTConfig(**(self.vision_config or {}))
        super().__post_init__(**kwargs)

    @property
    def projection_hidden_size(self) -> int:
        """Channels of a patch as it enters the projector: the vision tower's width."""
        return self.vision_config.hidden_size

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image patch."""
        return (3, self.vision_config.patch_size, self.vision_config.patch_size)

    @property
    def merge_shape(self) -> tuple[int, int]:
        """Patches down and across that become one token of the text model."""
        return self.vision_config.merge_kernel_size

    @property
    def rope_base(self) -> float:
        """Base of the text model's rotary positions."""
        return float(self.text_config.rope_parameters["rope_theta"])

    @property
    def context(self) -> int:
        """The most tokens of a sequence."""
        return self.text_config.max_position_embeddings

    def to_dict(self) -> dict[str, Any]:
        """The hub's keys; `rope_theta` is written beside `rope_parameters` for readers that know only one of them."""
        output = super().to_dict()
        text = output.get("text_config")
        if isinstance(text, dict) and (rope := text.get("rope_parameters")):
            text["rope_theta"] = rope["rope_theta"]
            text["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
        return output


def _text_config(given: dict[str, Any]) -> DeepseekV3Config:
    merged = {**TEXT_DEFAULTS, **given}
    merged.pop("model_type", None)
    if "num_mtp_layers" in given:
        merged["num_nextn_predict_layers"] = merged.pop("num_mtp_layers")
    return DeepseekV3Config(**merged)


__all__ = ["KimiVLConfig", "MoonViTConfig"]
