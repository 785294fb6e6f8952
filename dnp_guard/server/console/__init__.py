"""The console: pages where people review decisions, and see who changed what."""
