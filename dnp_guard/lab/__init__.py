"""Everything that measures, and nothing that guards."""
