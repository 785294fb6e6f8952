"""Compare two batches of pictures bit by bit."""


def same(first, other):
    """Return, for every pair of pictures of two batches, whether all their values are equal."""
    return [bool((one == two).all()) for one, two in zip(first, other, strict=True)]
