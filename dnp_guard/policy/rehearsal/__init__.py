"""Try policies without a generation: given or recorded answers go through the real judge. No torch."""
