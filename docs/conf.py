"""Sphinx's settings, for both languages."""

import json
import logging
from pathlib import Path
from typing import Any

import jieba

jieba.setLogLevel(logging.WARNING)
project = "PyTorch Recipes"
copyright = "the authors of PyTorch Recipes, MIT license"
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["extra"]
myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3
smartquotes_action = "qe"  # quotes and ellipses; two hyphens begin an option
html_theme = "furo"
html_title = project
html_favicon = "static/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["gallery.js"]
html_show_sphinx = False
html_copy_source = False
html_use_index = False
templates_path = ["templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "language.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def follow_the_notes(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Previous and next of a recipe are its neighbors in the order of the notes."""
    context["other_language"] = "en" if app.config.language.startswith("zh") else "zh"
    order: list[str] = json.loads((Path(app.srcdir) / "order.json").read_text("utf-8"))
    if page in order:
        place = order.index(page)
        titles = app.env.titles
        beside = {"prev": order[place - 1 : place], "next": order[place + 1 : place + 2]}
        for side, names in beside.items():
            made = [{"link": app.builder.get_relative_uri(page, one), "title": titles[one].astext()} for one in names]
            context[side] = made[0] if made else None


def setup(app: Any) -> None:
    app.config.html_extra_path = [str(Path(app.srcdir) / "extra")]
    app.connect("html-page-context", follow_the_notes)
