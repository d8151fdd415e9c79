"""Steps: what a layer adds to a program, forward and backward."""
