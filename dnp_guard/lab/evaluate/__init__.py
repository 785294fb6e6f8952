"""Measure the guard with detectors that are independent of it."""
