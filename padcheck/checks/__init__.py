"""Rules: what is seen becomes a `Finding` with its evidence and the suggestion that helps."""
