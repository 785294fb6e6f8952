"""One generation: plan its queries, judge the answers, and report what happens."""
