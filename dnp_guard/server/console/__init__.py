"""The pages for people: what was decided, whether it is right, and who changed what."""
