"""Diffusers pipelines.

``late`` puts the attribute on ``DiffusionPipeline`` (no torch until diffusers is imported); ``attach`` swaps the class
of a guarded pipeline; ``call`` guards one call; ``argument`` is the weaker call-argument form; ``families`` says how a
kind of pipeline is steered; ``prediction`` gives x̂0.
"""
