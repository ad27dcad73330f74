"""What the images are for."""
