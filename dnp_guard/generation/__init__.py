"""One generation: what is planned, judged and told of it."""
