"""Reporting of runs: pages, figures, TensorBoard's hyper-parameters, and progress in the terminal."""
