"""Captions, questions and untrained models of Glyphs, the toy world of the embedded models."""
