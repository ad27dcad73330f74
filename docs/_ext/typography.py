"""Numbers that stay on one line, by no-break spaces between number, `±` and unit; dashes in lists of arguments."""

import re
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

UNITS = "%|s|min|h|days?|points?|MB|MiB|GB|GiB|images|updates|steps|epochs|seeds|px|°"
BREAKS = re.compile(rf" (?=±)|(?<=±) (?=\d)|(?<=\d) (?=(?:{UNITS})\b|%)")


class KeepNumbers(SphinxPostTransform):
    """Replace the spaces within numbers, and two hyphens, in text; code stays as it is."""

    default_priority = 900

    def run(self, **_: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if not isinstance(
                text.parent, (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)
            ):
                kept = BREAKS.sub("\N{NO-BREAK SPACE}", text.astext()).replace(" -- ", " \N{EN DASH} ")
                if kept != text.astext():
                    text.parent.replace(text, nodes.Text(kept))


def setup(app: Any) -> dict[str, Any]:
    """Register the transform."""
    app.add_post_transform(KeepNumbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
