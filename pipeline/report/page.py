"""HTML pages: one self-contained file each. A page loads nothing from the network; every name in it is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> bytes:
    """Render a template to a page, with style and script inlined.

    Args:
        template: file name in `templates/`.
        context: every variable of the template; a missing one raises `jinja2.UndefinedError`.
    """
    return render_text((_TEMPLATES / template).read_text(), **context)


def render_text(template: str, **context: Any) -> bytes:
    """The same for the text of a template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inlined = {name: Markup((_TEMPLATES / name).read_text()) for name in ("style.css", "table.js", "pictures.js")}
    return (
        environment.from_string(template)
        .render(style=inlined["style.css"], script=inlined["table.js"] + inlined["pictures.js"], **context)
        .encode()
    )
