"""Trackers, to which a run's curves are sent: TensorBoard's events always, MLflow or Weights & Biases on request."""
