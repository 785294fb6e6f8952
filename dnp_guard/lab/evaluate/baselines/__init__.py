"""Equations of the published methods that the guard is compared with; every method is one flat function."""
