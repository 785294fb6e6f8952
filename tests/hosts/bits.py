"""Which pictures of a batch are the same, bit by bit."""


def same(first, other):
    """Return, per picture, whether two batches hold the same."""
    return [bool((one == two).all()) for one, two in zip(first, other, strict=True)]
