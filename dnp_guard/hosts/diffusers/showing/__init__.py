"""Show what a call predicts and what it returns: as pictures, in the form that was asked for, and to callbacks."""
