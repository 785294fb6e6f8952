"""Guard diffusers pipelines.

- ``on_import`` gives ``DiffusionPipeline`` the attribute ``callback_on_step_end`` as soon as diffusers is imported.
- ``attach`` swaps the class of a guarded pipeline, and ``call`` guards one call.
- ``argument`` guards a call by an argument, which is weaker.
- ``asking`` finds out from the pipeline itself where its prompt goes.
- ``showing`` turns the pipeline's predictions and its output into pictures.
- ``injection`` puts negative prompts into the denoiser.
- ``prediction`` computes the predicted clean image x̂0.
"""
