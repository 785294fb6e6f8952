"""From a decision to a negative prompt, its scale, and the arithmetic of guidance."""
