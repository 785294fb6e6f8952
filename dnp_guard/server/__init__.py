"""The guard as an HTTP service, for hosts that cannot import it. Needs the extra ``server``."""
