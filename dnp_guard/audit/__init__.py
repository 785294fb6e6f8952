"""The audit log: what was asked, seen and injected, in a form that shows where it was changed.

One JSON object a line, each holding the hash of the line before. A chain without a key finds accidents and partial
edits at their line; rewriting to the end or cutting the tail is found only against a checkpoint kept elsewhere.
"""

from dnp_guard.audit.read.verify import Verification, verify
from dnp_guard.audit.redact import prompt_field, prompt_key
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sinks import MemorySink, Sink
from dnp_guard.audit.write.spool import spool_folder

__all__ = ["JsonlSink", "MemorySink", "Sink", "Verification", "prompt_field", "prompt_key", "spool_folder", "verify"]
