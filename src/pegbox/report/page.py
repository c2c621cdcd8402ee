"""A page from a template: everything escaped, nothing undefined, and no script but ours.

Style and script stand inside the page. Its Content-Security-Policy allows that one script by its SHA-256 and no other, no
request, and no form: text that became a script all the same would not run. Style cannot be held to a hash, for the
pictures set it element by element.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """The HTML of `templates/<template>`; text is escaped, and a value that the template misses is an error."""
    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "browser.js").read_text(encoding="utf-8")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    ours = {"script": Markup(script), "style": Markup(style), "policy": policy(script)}
    return pages.get_template(template).render(**ours, **values)


def policy(script: str) -> str:
    """The Content-Security-Policy of a page whose only script is `script`."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def as_data(value: Any) -> Markup:
    """JSON for a `<script type="application/json">`: no text in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
