"""Serving engines: plugins that vLLM-Omni and SGLang-Diffusion load in each of their processes.

``settings`` configures both; ``worker`` holds the one guard of a worker process, and refuses to generate without it;
``attestation`` holds the reports of the workers, and ``middleware`` passes them on to the engine's clients. The guard
works in diffusers pipelines that an engine wraps, in SGLang-Diffusion's stages (``sglang_pipeline``), and in
vLLM-Omni's own pipelines (``vllm_omni_pipeline``). No module here imports an engine; the code here runs when the engine
imports its own modules.
"""
