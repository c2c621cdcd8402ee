"""The site's settings: Sphinx reads Markdown (MyST) from this folder and writes HTML that needs no network.

Pages that hold a mark `<!-- generated: ... -->` are completed from the program by generate.py while they are read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from generate import fill  # noqa: E402

from pegbox import __version__  # noqa: E402

project = "pegbox"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3
PICTURE = "images/report.png"
ALT = "The report of a run: the verdict, every system with its interval, the curves and the rows that changed"
myst_substitutions = {"report_picture": f"![{ALT}]({PICTURE})" if (HERE / PICTURE).exists() else ""}

default_role = "code"  # docstrings quote names in single backticks
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"pegbox {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}


def complete(app: Any, page: str, source: list[str]) -> None:
    """Sphinx hands over each page's text in a list of one, to be changed in place."""
    source[0] = fill(source[0])


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
