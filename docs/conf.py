"""Sphinx's configuration."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from dnp_guard import __version__

project = "dnp_guard"
author = "the dnp_guard contributors"
release = __version__
html_theme = "furo"
html_title = f"dnp_guard {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
# Of a console block the commands alone are copied, without their prompts and what they print.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# An attribute that is documented by its class and as a property is one thing, not two.
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
