"""Decode x̂0, the denoiser's prediction of the finished latents, to RGB pictures for the vision-language model."""
