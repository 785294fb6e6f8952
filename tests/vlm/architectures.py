"""Tiny models of real architectures, from their configurations, with random weights."""

from __future__ import annotations

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
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
    ShieldGemma2Processor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
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
    """One token a word, and one for each special one."""
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
    """A model, whose answers differ between images and questions, and its processor."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model, processor = BUILD[name]()
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.5)  # gates and projections that begin at 0 would shut the picture out
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


BUILD: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava": llava,
    "idefics3": idefics3,
    "gemma3": gemma3,
    "paligemma": paligemma,
    "mllama": mllama,
    "shieldgemma2": shieldgemma2,
}
