"""Train the embedded models from scratch: ``python -m dnp_guard.lab.train``."""
