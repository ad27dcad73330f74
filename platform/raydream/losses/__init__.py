"""The terms of the objective, each a plain function, and the objective that adds them up.

Letters: N images, C channels, H height, W width, K classes.
"""
