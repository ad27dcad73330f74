"""Sphinx's settings for `make docs`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "platform")]

project = "raydream"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "raydream"
html_math_renderer = "mathml"  # MathJax would be fetched from elsewhere
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["_build"]
autodoc_preserve_defaults = True
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
