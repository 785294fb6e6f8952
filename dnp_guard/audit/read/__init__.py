"""Read an audit log: verify it, show it, report on it, export it, and purge its old records."""
