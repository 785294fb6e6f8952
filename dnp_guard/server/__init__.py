"""The guard as a service: hosts that cannot import it ask over HTTP. Needs the extra ``server``."""
