"""Stand in for the UNet of AUTOMATIC1111: the embedded UNet with cross-attention layers of CompVis' interface.

The layers have the interface of ``CrossAttention`` in CompVis' ``ldm/modules/attention.py``. The web UI replaces its
``forward(x, context=None, mask=None)`` with one from ``modules/sd_hijack_optimizations.py``, which applies the two
modules of ``to_out`` to the output.
"""

import copy

import torch


class CrossAttention(torch.nn.Module):
    """A cross-attention layer with CompVis' interface and the weights of a layer of diffusers."""

    def __init__(self, layer):
        super().__init__()
        self.heads = layer.heads
        self.to_q, self.to_k, self.to_v = layer.to_q, layer.to_k, layer.to_v
        self.to_out = torch.nn.Sequential(*layer.to_out)

    def forward(self, x, context=None, mask=None):
        assert mask is None
        given = self.to_q(x), self.to_k(x if context is None else context), self.to_v(x if context is None else context)
        q, k, v = [
            tensor.view(len(x), -1, self.heads, tensor.shape[-1] // self.heads).transpose(1, 2) for tensor in given
        ]
        z = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        projection, dropout = self.to_out
        return dropout(projection(z.transpose(1, 2).reshape(len(x), -1, x.shape[-1])))


def compvis(unet):
    """Return a copy of the embedded UNet with these layers in place of its own cross-attention layers."""
    made = copy.deepcopy(unet)
    blocks = [module for module in made.modules() if hasattr(module, "attn2")]
    for block in blocks:
        block.attn2 = layer = CrossAttention(block.attn2)

        def asked(x, encoder_hidden_states=None, layer=layer, **_):
            return layer(x, context=encoder_hidden_states)

        vars(block)["attn2"] = asked  # the block calls this; the layer stays the module of this name
    return made
