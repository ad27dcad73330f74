"""raydream: turn a trained CNN into a data set, and that data set into other networks, with no real image."""

__version__ = "0.1.0"
