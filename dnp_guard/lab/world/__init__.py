"""Captions, questions and untrained models of the embedded Glyphs world, for training and measurement."""
