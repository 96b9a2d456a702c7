"""The site: `make docs` writes it to site/. The pages are those that are read on a code host too."""

import re

import glunet

project, author, copyright = "glunet", "the glunet authors", "the glunet authors, Apache-2.0"
release = version = glunet.__version__
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
apidoc_modules = [
    {
        "path": "../src/glunet",
        "destination": "api",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
]
myst_heading_anchors = 4
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
exclude_patterns = ["api/modules.rst"]
napoleon_use_ivar = True
autodoc_mock_imports = ["triton"]  # on machines with its GPUs only
suppress_warnings = ["ref.python"]  # glunet.Match is glunet.match.Match: either name will do
html_theme = "furo"
html_title = f"glunet {release}"


def as_site(app, docname: str, source: list[str]) -> None:
    """The front page's links, by section, are the contents; what lies outside the pages is named, not linked."""
    if docname == root_doc:
        for section in source[0].split("\n## ")[1:]:
            pages = re.findall(r"\]\(([\w/-]+)\.md\)", section)
            source[0] += toctree(section.splitlines()[0], pages)
        source[0] += toctree("API", ["api/glunet"])
    outside = re.escape("../" * (docname.count("/") + 1))
    source[0] = re.sub(rf"(?<!!)\[([^\]]+)\]\({outside}[^)]+\)", r"\1", source[0])


def toctree(caption: str, pages: list[str]) -> str:
    return "\n".join(("", "```{toctree}", f":caption: {caption}", ":hidden:", "", *pages, "```", ""))


def setup(app) -> None:
    app.connect("source-read", as_site)
