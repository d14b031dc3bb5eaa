"""How Sphinx builds the site: `sphinx-build -W docs build/site`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from generated import write_reference

import depthkit

project, release = "depthkit", depthkit.__version__
copyright = "the depthkit authors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
html_theme, html_title = "furo", f"depthkit {release}"
html_show_sphinx, html_static_path, html_css_files = False, ["static"], ["wide.css"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
autodoc_typehints = "none"  # signatures show them
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
default_role = "code"


def setup(app: object) -> None:
    """Write the pages that the package knows, before Sphinx looks for sources."""
    write_reference(Path(__file__).parent / "reference")
