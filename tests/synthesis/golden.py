"""Writes what this engine makes of fixed settings: `PYTHONPATH=platform:. python tests/synthesis/golden.py`.

Run it after `ENGINE_VERSION` was raised. `test_golden.py` compares.
"""

from pathlib import Path

import numpy as np
import torch

from raydream.config import StudentConfig
from raydream.engine_version import ENGINE_VERSION
from raydream.students.distillation import Distiller
from raydream.synthesis import SYNTHESIZERS, Request
from raydream.teachers.teacher import freeze
from tests.tiny import tiny_network, tiny_student, tiny_synthesis, tiny_targets, tiny_teacher

FILE = Path(__file__).with_name("golden.npz")


def made_here() -> dict[str, np.ndarray]:
    """Images of each method, two batches of those that learn, and the logits of a student that learned from some."""
    teacher, made = tiny_teacher(), {}
    for method in sorted(SYNTHESIZERS):
        settings = {"method": method, "flip": True, "generator": {"latent": 8, "width": 4}}
        synthesizer = SYNTHESIZERS[method](teacher, tiny_synthesis(**settings))
        batches = [synthesizer.synthesize(Request(tiny_targets(), seed, tiny_student())).images for seed in (0, 1)]
        made[method] = torch.cat(batches).numpy()
    images = torch.from_numpy(made["adaptive"])
    view = {"shift": 1, "zoom": 0.1, "rotation": 5, "brightness": 0.4, "contrast": 0.2, "cutout": 2, "mixup": 0.5}
    config = StudentConfig(arguments={"width": 8}, batch_size=16, precision="fp32", view=view)
    distiller = Distiller(teacher, tiny_network(2), config, total_steps=5, run_seed=0)
    for step in range(5):
        distiller.step(images, step)
    with torch.no_grad():
        made["student"] = freeze(distiller.learned)(teacher.normalization(images)).numpy()
    return made


if __name__ == "__main__":
    np.savez_compressed(FILE, engine=ENGINE_VERSION, **made_here())
