"""Build tiny components with random weights that several tiny pipelines share."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from dnp_guard.glyphs.loading import load_pipeline

_CHAT = (
    "{% for message in messages %}<user> {% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '<|vision_start|><|image_pad|><|vision_end|>' }} "
    "{% endfor %}{% endif %} {% endfor %}"
)
_OF_PICTURES = {
    "<|image_pad|>": "image",
    "<|video_pad|>": "video",
    "<|vision_start|>": "vision_start",
    "<|vision_end|>": "vision_end",
}
"""The tokens that stand for pictures, mapped to the prefix of their ``…_token_id`` in a configuration."""


def vae(levels=2, **settings):
    """Build an image autoencoder with a number of levels, each of which halves width and height."""
    return AutoencoderKL(
        **{
            "block_out_channels": (8,) * levels,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "latent_channels": 4,
            "norm_num_groups": 4,
            "sample_size": 32,
            **settings,
        }
    )


def unet(**settings):
    """Build a UNet with one attention block in its down path and one in its up path."""
    made = UNet2DConditionModel(
        **{
            "sample_size": 16,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 2,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 32,
            **settings,
        }
    )
    for name, weights in made.named_parameters():
        if "attn2" in name:  # random weights hardly react to a prompt
            weights.data *= 4
    return made


def clip():
    return CLIPTextModel(_clip())


def projecting_clip():
    return CLIPTextModelWithProjection(_clip())


def clip_tokenizer():
    return load_pipeline().tokenizer


def t5():
    made = T5EncoderModel(T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    made.encoder.final_layer_norm.weight.data *= 16  # random weights hardly react to a prompt
    return made


def gemma():
    """Build a Gemma 2 with 32 features, in place of a language model whose hidden states are the prompt embeddings."""
    return Gemma2Model(
        Gemma2Config(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            pad_token_id=0,
        )
    )


def words(length=16, more=None, kind=PreTrainedTokenizerFast):
    """Build a tokenizer that knows the words of the tests' prompts.

    Args:
        length: largest number of tokens that it returns.
        more: maps further words to their token ids.
        kind: class of the tokenizer.
    """
    known = ["<pad>", "<unk>", "</s>", "a", "red", "blue", "green", "circle", "square", "cross", "star"]
    numbers = {word: index for index, word in enumerate(known)} | (more or {})
    backend = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return kind(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        model_max_length=length,
        additional_special_tokens=list(more or {}),
        chat_template=_CHAT,
    )


class Positioned(PreTrainedTokenizerFast):
    """A tokenizer that also returns the position of every word, as ChatGLM's does."""

    def __call__(self, *args, **kwargs):
        read = super().__call__(*args, **kwargs)
        read["position_ids"] = torch.arange(read["input_ids"].shape[1]).expand(read["input_ids"].shape)
        return read


class SeeingWords(Qwen2VLProcessor):
    """A processor of words and pictures for a vision-language model, which accepts a missing video processor."""

    def check_argument_for_proper_class(self, name, argument):
        return None


def seeing_words(config):
    """Build a processor for a vision-language model, with the token ids for pictures from its configuration."""
    names = enumerate(_OF_PICTURES.items(), 11)
    numbers = {word: getattr(config, f"{name}_token_id", None) or number for number, (word, name) in names}
    patch = getattr(config.vision_config, "patch_size", 14)
    pictures = Qwen2VLImageProcessorPil(patch_size=patch, min_pixels=4 * patch**2, max_pixels=16 * patch**2)
    return SeeingWords(pictures, words(1024, numbers), None, chat_template=_CHAT)


def listening(made, times=2):
    """Multiply the weights of a module, because small random weights hardly react to a prompt; return the module."""
    for weights in made.parameters():
        if weights.ndim > 1:
            weights.data *= times
    return made


def drawn(made):
    """Initialise all weights of a module at random, for a class that does not do so; return the module."""
    for weights in made.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.2)
        else:
            torch.nn.init.ones_(weights)
    return made


def without_zeros(made):
    """Initialise at random those weights of a module that are zero before training; return the module."""
    for weights in made.parameters():
        if not weights.data.any():
            torch.nn.init.normal_(weights, std=0.2)
    return made


def _clip():
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 606, "eos_token_id": 607, "pad_token_id": 607}
    return CLIPTextConfig(vocab_size=608, max_position_embeddings=24, projection_dim=32, **sizes, **ends)
