"""Sphinx's settings for `make docs`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "platform")]

from inventories import inventories  # noqa: E402

project = "raydream"
copyright = "the raydream project, Apache-2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "settings",
    "typography",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "raydream"
html_static_path = ["_static"]
html_css_files = ["raydream.css"]
html_math_renderer = "mathml"  # MathJax would be fetched from elsewhere
smartquotes = False  # options keep their two hyphens
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["_build"]
intersphinx_mapping = inventories(HERE / "_build" / ".inventories")
autodoc_preserve_defaults = True
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
viewcode_line_numbers = True
copybutton_exclude = ".linenos, .gp, .go"
