"""Backends that query a server over HTTP."""
