"""The audit log: queries, findings and negatives, in a form that reveals changes.

Every line is a JSON object with the hash of the previous line. A chain without a key reveals accidents and partial
edits at their line. Rewriting to the end, or cutting the tail, is found only with a checkpoint stored elsewhere.
"""

from dnp_guard.audit.read.verify import Verification, verify
from dnp_guard.audit.redact import prompt_field, prompt_key
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sinks import MemorySink, Sink
from dnp_guard.audit.write.spool import spool_folder

__all__ = ["JsonlSink", "MemorySink", "Sink", "Verification", "prompt_field", "prompt_key", "spool_folder", "verify"]
