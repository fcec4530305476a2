"""Settings of the site that `make docs` builds; see https://www.sphinx-doc.org."""

from sphinx.application import Sphinx

from htdemucs import __version__

project, version, release = "htdemucs", __version__, __version__
author = "The htdemucs developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]

# The sources are the repository's own documents, so that links work here and on the code host.
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "benchmarks/results/*.md",
    "recipes/mini/README.md",
    "src/htdemucs/weights/mini/README.md",
]
exclude_patterns = [".*", "build", "dist", "separated", "recipes/mini/data*", "recipes/mini/run*"]
# In the order in which a newcomer needs them. A line with a colon is the caption of what follows.
NAVIGATION = [
    "Use:",
    "docs/getting-started",
    "docs/models",
    "docs/many-files",
    "docs/page",
    "docs/page-features",
    "docs/pipes-and-live",
    "docs/troubleshooting",
    "docs/speed",
    "docs/command-line",
    "Programs:",
    "docs/python-api",
    "docs/http-api",
    "docs/migrating",
    "Networks:",
    "docs/network",
    "docs/network.zh-CN",
    "docs/training",
    "docs/evaluation",
    "Project:",
    "docs/architecture",
    "CONTRIBUTING",
    "CHANGELOG",
]
suppress_warnings = ["toc.not_included"]  # measurements and decisions have lists of their own

myst_heading_anchors = 3
myst_enable_extensions = ["html_image"]
myst_fence_as_directive = ["mermaid"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"htdemucs {version}"


def add_navigation(_app: Sphinx, document: str, source: list[str]) -> None:
    """Append the navigation to README.md, where the code host would show it as text."""
    if document == root_doc:
        for entry in NAVIGATION:
            if entry.endswith(":"):
                closing = "" if entry == NAVIGATION[0] else "\n```\n"
                source[0] += f"{closing}\n```{{toctree}}\n:hidden:\n:caption: {entry[:-1]}\n"
            else:
                source[0] += f"\n{entry}"
        source[0] += "\n```\n"


def setup(app: Sphinx) -> None:
    """Register the function above."""
    app.connect("source-read", add_navigation)
