"""Predictions x̂0 to pictures. The one place where latents become RGB for the vision-language model."""

from dnp_guard.preview.autoencoder import decode, encode, reduced, to_pictures, to_tensor

__all__ = ["decode", "encode", "reduced", "to_pictures", "to_tensor"]
