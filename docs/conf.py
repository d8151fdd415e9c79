"""How Sphinx builds the documentation: `python -m sphinx -W -b html docs build/docs`."""

import re

from mlp import __version__

project = "mlp"
author = "The mlp authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
default_role = "code"  # single backticks in docstrings are code

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
doctest_test_doctest_blocks = "default"
doctest_default_flags = 0b1000 | 0b0100  # ELLIPSIS, NORMALIZE_WHITESPACE

html_theme = "furo"
html_title = f"mlp {version}"
html_copy_source = False


def as_plain_text(app, what, name, obj, options, lines):  # noqa: ARG001  # Sphinx's signature
    """Make reStructuredText of a docstring written as plain text: stars are stars, indented lines are as they stand."""
    plain, indented = [], False
    for line in lines:
        is_example = line.startswith((">>>", "..."))
        if line.startswith("    ") and not indented and (not plain or not plain[-1]):
            plain += ["::", ""]
        indented = line.startswith("    ") or (indented and not line)
        plain.append(line if indented or is_example else re.sub(r"(?<![`*\w])\*(?=\w)|(?<!`)\|", r"\\\g<0>", line))
    lines[:] = plain


def setup(app):
    """Tell Sphinx."""
    app.connect("autodoc-process-docstring", as_plain_text)
