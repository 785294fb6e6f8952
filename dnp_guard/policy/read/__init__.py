"""Read a policy from YAML, and report every mistake at its line."""
