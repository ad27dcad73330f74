"""Students: the distillation step and the views of the images that it trains on."""
