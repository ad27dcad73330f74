"""What a run tells people: its folder, metrics, TensorBoard events, progress, figures and report."""
