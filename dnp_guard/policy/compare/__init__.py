"""Compare two policies, and merge them into the stricter of both."""
