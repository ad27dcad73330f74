"""The tables of the paper as experiments: the runs of each, their figures, and the paper's own figures."""
