"""Build negative prompts from findings, set their strength, and compute the guidance that applies them."""
