"""Train a latent probe on the answers of a vision-language model, from a new run or from an audit log."""
