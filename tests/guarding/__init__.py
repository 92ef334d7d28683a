"""`padcheck.guard` on small editors of its own, written in the shape of the published ones."""
