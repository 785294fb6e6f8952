"""Steer in the denoiser's attention over the prompt, on a copy of the denoiser that is made for one call."""
