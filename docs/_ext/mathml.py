"""Equations as MathML, which browsers draw by themselves: no script, no fonts, no request."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

SCRIPT = {"I": "ℐ", "L": "ℒ", "R": "ℛ"}
"""letters of script, which browsers do not make of `mathvariant`"""


def converted(latex: str, display: str = "inline") -> str:
    """Convert an equation to MathML.

    Args:
        latex: the equation, without dollar signs.
        display: inline or block.
    """
    letters = rf'<mi mathvariant="script">([{"".join(SCRIPT)}])</mi>'
    return re.sub(letters, lambda found: f"<mi>{SCRIPT[found[1]]}</mi>", convert(latex, display=display))


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(converted(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{converted(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
