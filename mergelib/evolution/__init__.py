"""Search over genomes in [0, 1]^d by ask and tell: one algorithm a file, on DEAP's parts."""
