"""Read a log: verify, show, report, export and retention."""
