"""Diffusers pipelines.

``late`` puts the attribute on ``DiffusionPipeline`` (no torch until diffusers is imported); ``attach`` swaps the class
of a guarded pipeline; ``call`` guards one call; ``argument`` is the weaker call-argument form; ``asking`` has the
pipeline itself say where its prompt goes; ``showing`` is what its predictions and its output look like; ``injection``
puts a negative into its denoiser; ``prediction`` gives x̂0.
"""
