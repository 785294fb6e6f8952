"""Measure the guard, and compare it with published methods, by detectors that are independent of it."""
