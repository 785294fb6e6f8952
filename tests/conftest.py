"""What every test runs under: no network, few threads, one terminal width."""

from __future__ import annotations

import os

# Read when the libraries are imported, so they are set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "2"
os.environ["COLUMNS"] = "120"
os.environ["NO_COLOR"] = "1"
os.environ.pop("DNP_GUARD_AUDIT_KEY", None)
os.environ.pop("DNP_GUARD_TRACEBACK", None)
