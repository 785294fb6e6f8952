"""Training of the embedded models from nothing: ``python -m dnp_guard.lab.train``."""
