"""Rule pages as tests: the examples that they show are run, and one change turns each into the other."""
