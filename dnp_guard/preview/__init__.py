"""Predictions x̂0 to pictures. The one place where latents become RGB for the vision-language model."""
