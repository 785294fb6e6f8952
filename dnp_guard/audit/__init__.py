"""The audit log: records of queries, findings and negative prompts, in a form that reveals later changes.

Every line is a JSON object with the hash of the previous line. This chain has no key: verifying it reveals accidents
and partial edits, with their line. Whether a log was rewritten up to its end, or its tail cut off, is found only with a
checkpoint that is stored elsewhere.
"""

from dnp_guard.audit.read.verify import Verification, verify
from dnp_guard.audit.redact import prompt_field, prompt_key
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sinks import MemorySink, Sink
from dnp_guard.audit.write.spool import spool_folder

__all__ = ["JsonlSink", "MemorySink", "Sink", "Verification", "prompt_field", "prompt_key", "spool_folder", "verify"]
