"""Build tiny vision-language models of real architectures, with random weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
    ShieldGemma2Processor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
    SmolVLMProcessor,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = (
    "yes no Yes No YES NO safe unsafe user assistant : ? . ( ) , { } \" ' is are there a an the this image in star "
    "skull bolt circle ring red drawn Is Does show small or not picture safe S1 S2 S3 O1 O2 O3 "
    "rating Safe Unsafe category rationale"
)
SIDE = {"height": 32, "width": 32}
CHAT = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token per word of :data:`WORDS` and per special token.

    Args:
        special: special tokens, such as ``<image>``.
        named: special tokens by the attribute under which the tokenizer keeps them.
    """
    words = dict.fromkeys(["<pad>", "<s>", "</s>", "<unk>", *named.values(), *special, *WORDS.split()])
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        **({"extra_special_tokens": named} if named else {"additional_special_tokens": list(special)}),
    )


def build(name: str) -> tuple[Any, Any]:
    """Build the model of an architecture, and its processor; its answers differ between images and questions."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model, processor = BUILD[name]()
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.5)  # gates and projections that begin at 0 would hide the picture
            elif weight.ndim > 1:
                weight.mul_(4)
    return model.eval(), processor


def _text(words: PreTrainedTokenizerFast, size: int = 0) -> dict[str, Any]:
    return {
        "vocab_size": size or len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }


def _siglip() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "vision_use_head": False,
    }


def idefics3() -> tuple[Any, Any]:
    words = tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    pixels = Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    processor = Idefics3Processor(pixels, words, image_seq_len=4, chat_template=CHAT.replace("IMAGE", "<image>"))
    vision = {key: value for key, value in _siglip().items() if key != "vision_use_head"}
    config = Idefics3Config(
        vision_config=vision,
        text_config=LlamaConfig(**_text(words)).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=words.pad_token_id,
    )
    return Idefics3ForConditionalGeneration(config), processor


def _gemma_words() -> PreTrainedTokenizerFast:
    named = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<image>"}
    return tokenizer(**named)


def _gemma(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    layers = {"layer_types": ["full_attention", "full_attention"], "query_pre_attn_scalar": 16}
    return {
        "vision_config": SiglipVisionConfig(**_siglip()).to_dict(),
        "text_config": Gemma3TextConfig(**_text(words), **layers).to_dict(),
        "mm_tokens_per_image": 4,
        "boi_token_index": words.boi_token_id,
        "eoi_token_index": words.eoi_token_id,
        "image_token_index": words.image_token_id,
    }


def gemma3() -> tuple[Any, Any]:
    words = _gemma_words()
    pixels = Gemma3ImageProcessorPil(size=SIDE)
    processor = Gemma3Processor(pixels, words, chat_template=CHAT.replace("IMAGE", "<boi>"), image_seq_length=4)
    return Gemma3ForConditionalGeneration(Gemma3Config(**_gemma(words))), processor


def shieldgemma2() -> tuple[Any, Any]:
    words = _gemma_words()
    pixels = Gemma3ImageProcessorPil(size=SIDE)
    template = CHAT.replace("IMAGE", "<boi>")
    processor = ShieldGemma2Processor(pixels, words, chat_template=template, image_seq_length=4)
    config = ShieldGemma2Config(**_gemma(words))
    config.yes_token_index, config.no_token_index = words.convert_tokens_to_ids(["Yes", "No"])
    return ShieldGemma2ForImageClassification(config), processor


def paligemma() -> tuple[Any, Any]:
    words = tokenizer("<image>")
    pixels = SiglipImageProcessorPil(size=SIDE)
    pixels.image_seq_length = 16
    processor = PaliGemmaProcessor(pixels, words, chat_template=CHAT.replace("IMAGE", "<image>"))
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**_siglip(), projection_dim=32).to_dict(),
        text_config=GemmaConfig(**_text(words)).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(words),
    )
    return PaliGemmaForConditionalGeneration(config), processor


def mllama() -> tuple[Any, Any]:
    words = tokenizer("<|python_tag|>", "<|image|>")
    pixels = MllamaImageProcessorPil(size=SIDE, max_image_tiles=2)
    processor = MllamaProcessor(pixels, words, chat_template=CHAT.replace("IMAGE", "<|image|>"))
    text = _text(words) | {
        "cross_attention_layers": [1],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    text.pop("head_dim")
    vision = MllamaVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_global_layers=1,
        attention_heads=2,
        intermediate_size=64,
        vision_output_dim=64,
        image_size=32,
        patch_size=8,
        max_num_tiles=2,
        intermediate_layers_indices=[0],
        supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
    )
    config = MllamaConfig(
        vision_config=vision.to_dict(),
        text_config=MllamaTextConfig(**text).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
    )
    return MllamaForConditionalGeneration(config), processor


def llava() -> tuple[Any, Any]:
    words = tokenizer("<image>")
    pixels = CLIPImageProcessorPil(size=SIDE, crop_size=SIDE)
    processor = LlavaProcessor(
        pixels,
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    vision = {key: value for key, value in _siglip().items() if key != "vision_use_head"}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, projection_dim=32),
        text_config=LlamaConfig(**_text(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    return LlavaForConditionalGeneration(config), processor


def _stills(kind: Any, pixels: Any, words: PreTrainedTokenizerFast, **named: Any) -> Any:
    """Build a processor of the class ``kind`` without running its constructor, which needs torchvision for videos."""

    class Stills(kind):
        def __init__(self) -> None:
            self.image_processor, self.tokenizer = pixels, words
            self.video_processor = SimpleNamespace(num_frames=1, fps=1, size=SIDE, max_image_size=SIDE)
            for name, value in named.items():
                setattr(self, name, value)

    return Stills()


def _qwen(kind: Any, config: Any, processor: Any, *, vision: dict[str, Any], rope: dict[str, Any]) -> tuple[Any, Any]:
    named = {name: f"<|{name}|>" for name in ("vision_start", "vision_end", "image_pad", "video_pad")}
    words = tokenizer(*named.values())
    ids = {name: words.convert_tokens_to_ids(token) for name, token in named.items()}
    pixels = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 1024, "longest_edge": 1024}
    )
    stills = _stills(
        processor,
        pixels,
        words,
        chat_template=CHAT.replace("IMAGE", named["vision_start"] + named["image_pad"] + named["vision_end"]),
        image_token=named["image_pad"],
        video_token=named["video_pad"],
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token=named["vision_start"],
        vision_end_token=named["vision_end"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    sizes = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
    patches = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    position = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0, **rope}
    made = config(
        text_config={**_text(words), "rope_parameters": position},
        vision_config={**sizes, **patches, **vision},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    return kind(made), stills


def qwen2_5_vl() -> tuple[Any, Any]:
    return _qwen(
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLConfig,
        Qwen2_5_VLProcessor,
        vision={"window_size": 16, "fullatt_block_indexes": [1]},
        rope={},
    )


def qwen3_vl() -> tuple[Any, Any]:
    return _qwen(
        Qwen3VLForConditionalGeneration,
        Qwen3VLConfig,
        Qwen3VLProcessor,
        vision={"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        rope={"mrope_interleaved": True},
    )


def smolvlm() -> tuple[Any, Any]:
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
        "video_token": "<video>",
    }
    words = tokenizer(*named.values())
    pixels = SmolVLMImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    image = words.convert_tokens_to_ids("<image>")
    template = CHAT.replace("IMAGE", "<image>")
    stills = _stills(
        SmolVLMProcessor, pixels, words, chat_template=template, image_token_id=image, image_seq_len=4, **named
    )
    config = SmolVLMConfig(
        vision_config={key: value for key, value in _siglip().items() if key != "vision_use_head"},
        text_config=LlamaConfig(**_text(words)).to_dict(),
        image_token_id=image,
        scale_factor=2,
        pad_token_id=words.pad_token_id,
    )
    return SmolVLMForConditionalGeneration(config), stills


BUILD: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": llava,
    "idefics3": idefics3,
    "gemma3": gemma3,
    "paligemma": paligemma,
    "mllama": mllama,
    "qwen2.5-vl": qwen2_5_vl,
    "qwen3-vl": qwen3_vl,
    "smolvlm": smolvlm,
    "shieldgemma2": shieldgemma2,
}
