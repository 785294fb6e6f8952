"""Two policies beside each other: what differs, and what the stricter of both is."""
