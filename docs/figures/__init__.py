"""The figures of README and docs, from the JSON files of the runs that measured them: `make figures`.

A page holds generated text between two comments, and nothing is written there by hand:

    <!-- figures: NAME -->98.6 ± 0.3 %<!-- end -->      within a sentence or a cell, never at the beginning of a line
    <!-- figures: NAME -->  …table…  <!-- end -->       a table, each comment on a line of its own

NAME is a key of `FIGURES`. Its function reads `benchmarks/results/*.json` or `docs/results/*/summary.json` and returns
Markdown. The modules are by subject: `front`, `students`, `pruning`, `quantization`, `new_classes`, `searching`,
`speed`, `networks`, `reproduced`.
`tests/docs/test_figures.py` asserts that the pages hold what the functions return.

`±` is half of the 95 % interval of the mean over seeds (Student's t) everywhere; a figure of a single run has none.
"""

from docs.figures import front, networks, new_classes, pruning, quantization, reproduced, searching, speed, students
from docs.figures.text import FIGURES

__all__ = [
    "FIGURES",
    "front",
    "networks",
    "new_classes",
    "pruning",
    "quantization",
    "reproduced",
    "searching",
    "speed",
    "students",
]
