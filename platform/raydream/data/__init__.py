"""Data sets: real ones, for training teachers and for measuring, and the images of a run, for any user.

Real images reach the training side of a run only where a user names them as a student's training images.
"""

from raydream.data.image_set import ImageSet, export_folder
from raydream.data.real import check_data, load_data
from raydream.data.splits import Dataset, Split

__all__ = ["Dataset", "ImageSet", "Split", "check_data", "export_folder", "load_data"]
