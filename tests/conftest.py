"""Set up the environment of all tests: no network, one thread, a fixed terminal width, empty user folders."""

from __future__ import annotations

import os
import tempfile

from hypothesis import settings

# Libraries read these variables when they are imported, so they are set before any test module is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # the models are tiny, and waiting threads cost more than they save
os.environ["COLUMNS"] = "120"
os.environ["NO_COLOR"] = "1"
os.environ.pop("DNP_GUARD_AUDIT_KEY", None)
os.environ.pop("DNP_GUARD_TRACEBACK", None)
os.environ.pop("DNP_GUARD_OVERRIDE", None)
os.environ.pop("DNP_GUARD_SERIALS", None)
os.environ.pop("DNP_GUARD_CACHE", None)
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="dnp-guard-cache-")
# No state may come from the home folder of the person who runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="dnp-guard-tests-")

# No test asserts durations: a busy machine is slow, not wrong.
settings.register_profile("dnp_guard", deadline=None)
settings.load_profile("dnp_guard")
