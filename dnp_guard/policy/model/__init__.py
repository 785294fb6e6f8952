"""The policy as a validated value: its fields, and the rules that concern several of them."""
