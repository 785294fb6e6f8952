"""Serving engines: plugins that vLLM-Omni and SGLang-Diffusion load in each of their processes.

``settings`` is what both are configured by; ``worker`` holds the one guard of a worker, and refuses where there is
none; ``attestation`` is what a worker says of itself, and ``middleware`` says it to the engine's clients. Nothing here
imports an engine: its modules are met when the engine imports them.
"""
