"""Configuration of the documentation site: `make docs` builds it offline into docs/_build.

Pages are read from the top of the checkout, so that a link such as ``../schemas/cube.json`` means the same
file on the site as on the code host. Links to files that are no pages become downloads.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.inspect import signature, stringify_signature

project = "hephaestus-build"
version = release = installed_version(project)
html_title = f"{project} {release}"

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [".*", "data", "results", "dist", "**/_build", "**/.ipynb_checkpoints"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Markdown: links to headings work as on the code host
myst_heading_anchors = 4

# the notebooks are run with each build of the site; a cell that fails ends it
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
# what the notebooks show depends on nobody's settings, and their commands are those of this environment
for name in [name for name in os.environ if name.startswith(("HEPHAESTUS_", "CDSAPI_"))]:
    del os.environ[name]
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# API reference: docstrings in NumPy style, which state the types
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
# of training, only signatures and docstrings are wanted: the site is built without its gigabytes
autodoc_mock_imports = [
    "lightning",
    "segmentation_models_pytorch",
    "safetensors",
    "tensorboard",
    "timm",
    "torch",
    "torchvision",
]

html_theme = "furo"
html_extra_path = ["_site"]  # index.html, which leads to docs/index.html
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


_log = logging.getLogger(__name__)
_LOADED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=[\"']((?:https?:)?//[^\"']+)", re.IGNORECASE
)
_IMPORTED = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')]+)")


def _check_self_contained(app: Sphinx, error: Exception | None) -> None:
    """Warn of pages that load a script, a style, a font or a picture from another host."""
    if error is not None or app.builder.format != "html":
        return
    for pattern, suffix in ((_LOADED, "*.html"), (_IMPORTED, "*.css")):
        for path in sorted(Path(app.outdir).rglob(suffix)):
            for address in pattern.findall(path.read_text(encoding="utf-8")):
                page = path.relative_to(app.outdir)
                _log.warning("%s loads %s: the site must be complete without a connection", page, address)


def _signature_of_a_class(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Return the parameters of ``__init__``, also where a base class is one of the mocked imports."""
    if what != "class" or arguments is None:
        return arguments, returns
    return stringify_signature(signature(obj.__init__, bound_method=True), show_annotation=False), returns


def setup(app: Sphinx) -> None:
    """Add what the settings above cannot say."""
    app.connect("autodoc-process-signature", _signature_of_a_class)
    app.connect("build-finished", _check_self_contained)
