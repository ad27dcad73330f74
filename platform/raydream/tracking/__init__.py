"""Where a run's curves are sent: always to TensorBoard's events, on request to MLflow or Weights & Biases."""
