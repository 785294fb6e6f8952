"""Train a latent probe on what a vision-language model found: from a run of its own, or from an audit log."""
