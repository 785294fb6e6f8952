"""Measuring the guard: what was drawn, as an independent detector sees it."""
