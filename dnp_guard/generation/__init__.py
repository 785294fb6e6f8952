"""Guard one generation: plan its queries, judge the answers, steer the images, and report what happens."""
