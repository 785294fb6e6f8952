"""The audit log: what was asked, seen and injected, in a form that shows where it was changed.

One JSON object a line, each holding the hash of the line before. A chain without a key finds accidents and partial
edits at their line; rewriting to the end or cutting the tail is found only against a checkpoint kept elsewhere.
"""
