"""Train a latent probe on the answers of a vision-language model, from a new run or from an audit log.

A latent probe is a small network that predicts from latents whether a query would find anything, so that the guard can
skip queries that would not.
"""
