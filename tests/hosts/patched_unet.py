"""Stand in for the UNet of ComfyUI and Forge: the embedded UNet with their blocks and patches.

The names of the modules are those of ComfyUI's ``comfy/ldm/modules/diffusionmodules/openaimodel.py`` and Forge's
``backend/nn/unet.py``. A block handles its cross-attention ``attn2`` as ``BasicTransformerBlock`` does in
``comfy/ldm/modules/attention.py`` and ``backend/nn/unet.py``: it applies the patches of the inputs, then the attention
or the patch that replaces it, and then the projection of the output.
"""

import copy

import torch


def optimized_attention(q, k, v, heads, mask=None, attn_precision=None):
    """Compute attention with the interface of the host's function, on tensors [rows, tokens, width]."""
    apart = [tensor.view(len(tensor), -1, heads, tensor.shape[-1] // heads).transpose(1, 2) for tensor in (q, k, v)]
    z = torch.nn.functional.scaled_dot_product_attention(*apart, attn_mask=mask)
    return z.transpose(1, 2).reshape(len(q), -1, q.shape[-1])


class Block:
    """The cross-attention of one transformer block, used as an attention processor of diffusers.

    Args:
        network: the UNet, whose ``options`` hold the patches.
        name: ``input``, ``middle`` or ``output``, and the number of the block.
        index: number of the transformer in the block.
    """

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
    """The embedded UNet with the host's module names and patches; a call takes the host's ``transformer_options``."""

    def __init__(self, unet):
        super().__init__()
        made = copy.deepcopy(unet)
        self.options = {}
        self._made = [made]  # its modules have the names below, and no others
        down = [attention for block in made.down_blocks for attention in getattr(block, "attentions", ())]
        up = [attention for block in made.up_blocks for attention in getattr(block, "attentions", ())]
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
        return torch.nn.ModuleList(torch.nn.ModuleList([torch.nn.Identity(), attention]) for attention in attentions)

    def _patched(self, attention, name):
        for index, block in enumerate(attention.transformer_blocks):
            block.attn2.processor = Block(self, name, index)
