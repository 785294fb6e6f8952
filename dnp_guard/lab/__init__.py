"""Training and measurement: the guard itself imports nothing from here."""
