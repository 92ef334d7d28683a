"""A few steps of a real optimisation, in the shape of MEMIT's target vector."""
