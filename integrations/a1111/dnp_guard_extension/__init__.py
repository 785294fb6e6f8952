"""Guard AUTOMATIC1111's web UI and its derivatives, by the judgements of a separate process, ``dnp-guard serve``.

A *look* sends the predicted images of a denoising step to that service, whose vision-language model answers the
policy's questions about them. A *negative* is a text from the policy that images are then steered away from.

The extension imports only Python's standard library, and torch, Pillow, gradio and ``modules`` from the host, which
is the web UI. The host loads ``scripts/dnp_guard.py``; the differences between hosts are in ``host.py``.
"""

from __future__ import annotations

__version__ = "1.0.0"
