"""The tables of the paper as experiments: which runs each needs, what a run gives, and the paper's own figures."""
