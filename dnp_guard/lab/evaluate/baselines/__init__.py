"""The equations of the published methods that the guard is compared with, one flat function each."""
