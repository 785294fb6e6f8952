"""Components of random weights, a few thousand parameters each, that several pipelines are made of."""

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

from dnp_guard.glyphs.loading import load_pipeline


def vae(levels=2, **settings):
    """An image autoencoder that halves each side from level to level."""
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
    """A UNet of one attention block a side."""
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
        if "attn2" in name:  # random weights hardly listen to a prompt
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
    made.encoder.final_layer_norm.weight.data *= 16  # random weights hardly listen to a prompt
    return made


def gemma():
    """A decoder of 32 features, in place of any language model whose hidden states are the embeddings."""
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


def words(length=16):
    """A tokenizer of the words that tests draw."""
    known = ["<pad>", "<unk>", "</s>", "a", "red", "blue", "green", "circle", "square", "cross", "star"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        model_max_length=length,
        chat_template="{% for message in messages %}<user> {{ message['content'] }}{% endfor %}",
    )


def listening(made, times=2):
    """The same module with larger weights, as small ones hardly listen to a prompt."""
    for weights in made.parameters():
        if weights.ndim > 1:
            weights.data *= times
    return made


def without_zeros(made):
    """The same module with the weights that are zero until trained drawn at random."""
    for weights in made.parameters():
        if not weights.data.any():
            torch.nn.init.normal_(weights, std=0.2)
    return made


def _clip():
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 606, "eos_token_id": 607, "pad_token_id": 607}
    return CLIPTextConfig(vocab_size=608, max_position_embeddings=24, projection_dim=32, **sizes, **ends)
