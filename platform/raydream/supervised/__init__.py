"""Supervised training of teachers: the one place where a network learns from real images and their labels.

Only the jobs that train a teacher (`jobs/train.py`, `jobs/teacher.py`, `jobs/reproduce.py`) and the workers that they
start for it (`runtime/teaching.py`) import it. Nothing that makes images, or learns from made ones, does.
"""
