"""How the manual is built."""

from importlib.metadata import version as installed

from memoleo.config import _sections
from memoleo.config._targets import Target
from memoleo.http_rules._rule import Rule

# Imported there for types only, and named in a signature that the manual shows.
vars(_sections).update(Rule=Rule, Target=Target)

project = "memoleo"
author = "memoleo contributors"
copyright = "memoleo contributors"
release = installed("memoleo")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "code"

html_theme = "furo"
html_title = "memoleo"
html_static_path: list[str] = []
