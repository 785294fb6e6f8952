"""Steer in the denoiser's attention over the prompt: a watched copy for one call, and what is done in it."""
