"""Charts of a table: pictures side by side, learning curves, and features in two dimensions."""

from collections.abc import Mapping, Sequence

import numpy as np

from raydream.reporting.charts import Axis, Chart, Line, Mosaic, Panel, banded, category
from raydream.reporting.gallery import picture


def method_grid(images: Mapping[str, np.ndarray]) -> Mosaic:
    """Show images side by side: a row for each method, a column for each class.

    Args:
        images: uint8 [N,C,H,W] by method, one at least; of images without three channels the first is shown.
    """
    columns = max(map(len, images.values()))
    rows = [(_plain(name), [[picture(image)] for image in pictures]) for name, pictures in images.items()]
    return Mosaic("Each column should show one class.", [str(label) for label in range(columns)], rows)


def learning_curves(curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> Chart | None:
    """Draw accuracy over distillation steps: each row's mean over seeds, and a band from the lowest to the highest.

    Args:
        curves: by row, of each seed the points, each with its `step`.
    """
    panels = []
    colors = {_plain(row): category(index) for index, row in enumerate(curves)}
    for name, label in (("generated", "generated images so far"), ("test", "real test images")):
        found = {
            _plain(row): [[(float(point["step"]), float(point[name])) for point in points if name in point]
                          for points in seeds]
            for row, seeds in curves.items()
        }  # fmt: skip
        lines = [line for line in banded(found, colors) if line.points]
        if lines:
            panels.append(Panel(label, Axis("distillation step"), Axis("accuracy", share=True), lines))
    return Chart("What is learned on images should carry over.", panels) if panels else None


def projections(points: Mapping[str, np.ndarray]) -> Chart | None:
    """Draw features in the plane of two principal components: a panel for each row, real images behind all.

    Args:
        points: [N,2] by row; those of `real` are drawn in each panel.
    """
    real = [Line("real", points["real"].tolist(), "soft", dots=True)] if "real" in points else []
    panels = [
        Panel(_plain(row), Axis("first component"), Axis("second component"),
              [*real, Line("these images", found.tolist(), dots=True)])
        for row, found in points.items() if row != "real"
    ]  # fmt: skip
    return Chart("Images should lie where the real ones lie.", panels) if panels else None


def _plain(name: str) -> str:
    return name.replace("_", " ")
