"""The policy as a value: its fields, and the rules between them."""
