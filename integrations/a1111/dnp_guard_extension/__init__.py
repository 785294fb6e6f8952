"""The guard inside AUTOMATIC1111's web UI and its derivatives; ``dnp-guard serve`` makes the looks.

It imports Python's standard library, and torch, Pillow, gradio and the web UI's own ``modules`` from the host. The
host loads the script ``scripts/dnp_guard.py``; the differences between hosts are in ``host.py``.
"""

from __future__ import annotations

__version__ = "1.0.0"
