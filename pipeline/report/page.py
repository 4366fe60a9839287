"""Pages: one self-contained file each, which opens without a network and escapes every name it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> bytes:
    """A page of one of the templates; style and scripts come to lie inside it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {name: Markup((_TEMPLATES / name).read_text()) for name in ("style.css", "table.js")}
    return environment.get_template(template).render(style=own["style.css"], script=own["table.js"], **context).encode()
