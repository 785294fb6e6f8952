"""A stand-in of the UNet that ComfyUI and Forge sample with, over the embedded one: its blocks and their patches.

The names of the modules are those of ComfyUI's ``comfy/ldm/modules/diffusionmodules/openaimodel.py`` and Forge's
``backend/nn/unet.py``. What a block does with its ``attn2`` is what ``BasicTransformerBlock`` documents by
doing it, in ``comfy/ldm/modules/attention.py`` and ``backend/nn/unet.py``: patches of what goes in, then the patch that
replaces the attention, if there is one for the block, and the projection of the output.
"""

import copy

import torch


def optimized_attention(q, k, v, heads, mask=None, attn_precision=None):
    """The host's attention, of [rows, tokens, width]."""
    apart = [each.view(len(each), -1, heads, each.shape[-1] // heads).transpose(1, 2) for each in (q, k, v)]
    z = torch.nn.functional.scaled_dot_product_attention(*apart, attn_mask=mask)
    return z.transpose(1, 2).reshape(len(q), -1, q.shape[-1])


class Block:
    """What one transformer block does with its ``attn2``; in the place of a processor of diffusers."""

    def __init__(self, network, name, index):
        self.network, self.name, self.index = network, name, index

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        options = self.network.options
        extra = {key: value for key, value in options.items() if key not in {"patches", "patches_replace"}}
        extra |= {"n_heads": attn.heads, "dim_head": attn.to_q.out_features // attn.heads, "block": self.name}
        extra["block_index"] = self.index
        n, context, value = hidden_states, encoder_hidden_states, None
        for patch in options.get("patches", {}).get("attn2_patch", ()):
            n, context, value = patch(n, context, context if value is None else value, extra)
        q, k, v = attn.to_q(n), attn.to_k(context), attn.to_v(context if value is None else value)
        replaced = options.get("patches_replace", {}).get("attn2", {})
        key = (*self.name, self.index) if (*self.name, self.index) in replaced else self.name
        z = replaced[key](q, k, v, extra) if key in replaced else optimized_attention(q, k, v, attn.heads)
        return attn.to_out[1](attn.to_out[0](z))


class UNetModel(torch.nn.Module):
    """The embedded UNet with the host's names and patches; called with its ``transformer_options``."""

    def __init__(self, unet):
        super().__init__()
        made = copy.deepcopy(unet)
        self.options = {}
        self._made = [made]  # whose modules have the names below, and no others
        down = [each for block in made.down_blocks for each in getattr(block, "attentions", ())]
        up = [each for block in made.up_blocks for each in getattr(block, "attentions", ())]
        self.input_blocks, self.output_blocks = self._blocks("input", down), self._blocks("output", up)
        (middle,) = made.mid_block.attentions
        self.middle_block = torch.nn.ModuleList([torch.nn.Identity(), middle, torch.nn.Identity()])
        self._patched(middle, ("middle", 0))

    def forward(self, x, timesteps, context, transformer_options):
        self.options = transformer_options
        return self._made[0](x, timesteps, context).sample

    def _blocks(self, name, attentions):
        for number, attention in enumerate(attentions):
            self._patched(attention, (name, number))
        return torch.nn.ModuleList(torch.nn.ModuleList([torch.nn.Identity(), each]) for each in attentions)

    def _patched(self, attention, name):
        for index, block in enumerate(attention.transformer_blocks):
            block.attn2.processor = Block(self, name, index)
