"""Diffusers pipelines.

- ``on_import`` puts the attribute on ``DiffusionPipeline``, without importing torch before diffusers is imported.
- ``attach`` swaps the class of a guarded pipeline, and ``call`` guards one call.
- ``argument`` is the weaker form, as an argument of a call.
- ``asking`` finds out from the pipeline itself where its prompt goes.
- ``showing`` turns its predictions and its output into pictures.
- ``injection`` puts a negative into its denoiser.
- ``prediction`` computes x̂0.
"""
