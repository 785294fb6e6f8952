"""Decide which policy is in force: folders of policies, signatures, reloads, and the backends that may enforce one."""
