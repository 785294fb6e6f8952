"""Backends that compute in this process."""
