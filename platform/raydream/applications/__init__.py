"""Applications of the images: distillation, pruning, quantization and continual learning."""
