"""Words of the networks that learn, for axes and captions."""

WORDS = {
    "student": ("distillation step", "distillation loss (eq. 1)", "agreement with the teacher (%)"),
    "teacher": ("training step", "cross-entropy", "training views named right (%)"),
}
"""of each: its steps, its loss, and the share of views that it names as wanted"""
