"""From YAML to a policy, with every mistake at its line."""
