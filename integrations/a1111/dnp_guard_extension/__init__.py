"""The guard inside AUTOMATIC1111's web UI and what is built on it; the looking itself is done by ``dnp-guard serve``.

Python's standard library and what the host gives: torch, Pillow, gradio and the web UI's own ``modules``. The script
that the host loads is ``scripts/dnp_guard.py``; what differs between hosts is in ``host.py``.
"""

from __future__ import annotations

__version__ = "1.0.0"
