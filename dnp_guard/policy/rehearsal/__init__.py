"""Try policies without generating images: the guard's real rules decide about given or recorded answers. No torch."""
