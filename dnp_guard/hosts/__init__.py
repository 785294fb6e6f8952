"""Host adapters: they connect the guard to the programs that draw images (diffusers, k-diffusion, engines, others).

An adapter shows the guard every step of a sampler's run, and turns negative prompts into the model's conditioning.
"""
