"""Steer in the denoiser's attention over the prompt, in a copy whose attention layers are watched for one call."""
