"""One self-contained HTML page: tables, pictures and Markdown as markup, no resource from elsewhere.

Every function takes plain text and returns markup, so that nothing from a run is read as markup. Should
something be all the same: the page's policy runs no script but its own, and loads nothing.
"""

import base64
import hashlib
import html
import itertools
import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

from poison_jax.errors import UserError
from poison_jax.wording import DASH

_PNG = b"\x89PNG\r\n\x1a\n"


class Cell(NamedTuple):
    """A table's cell."""

    text: str
    value: float | str | None = None  # what it is sorted by; the text where None
    link: str | None = None  # id of a section
    kind: str = ""  # class: "state-done", ...


def escape(value: object) -> str:
    """A value as text of the page or of an attribute."""
    return html.escape(str(value), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>\n"


def why(reason: str) -> str:
    """A paragraph that says why something is not there, or not to be trusted."""
    return paragraph(reason, "why")


def section(title: str, body: str, *, id: str = "", level: int = 2) -> str:
    """Markup under a heading, which can be linked to where it has an id."""
    own = f' id="{escape(id)}"' if id else ""
    return f"<section{own}>\n<h{level}>{escape(title)}</h{level}>\n{body}</section>\n"


def fold(title: str, body: str) -> str:
    """Markup that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{body}</details>\n"


def raw(value: object) -> str:
    """A value as JSON."""
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>\n"


def skip(id: str, text: str) -> str:
    """A link past the contents, seen by who comes to it by keyboard."""
    return f'<a class="skip" href="#{escape(id)}">{escape(text)}</a>\n'


def contents(entries: Iterable[tuple[str, str, str]]) -> str:
    """A list of links.

    Args:
        entries: of each the id of its section, what is linked, and a remark behind it.
    """
    items = (
        f'<li><a href="#{escape(id)}">{escape(text)}</a> <small>{escape(remark)}</small></li>\n'
        for id, text, remark in entries
    )
    return f'<nav aria-label="Contents"><ul>\n{"".join(items)}</ul></nav>\n'


def progress(done: int, total: int, label: str) -> str:
    """A bar."""
    return f'<progress value="{done}" max="{total}" aria-label="{escape(label)}"></progress>\n'


def table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, sortable: bool = False) -> str:
    """A table: numbers to the right, the rest to the left.

    Args:
        header: names of the columns.
        rows: a cell for each of them.
        sortable: a click on a column's name sorts by it.
    """
    rows = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    numbers = [bool(rows) and all(map(_is_number, column)) for column in zip(*rows, strict=True)]
    heads = "".join(
        f'<th scope="col"{_class("number" * number)}>{escape(name)}</th>'
        for name, number in itertools.zip_longest(header, numbers, fillvalue=False)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    opening = f"{_WIDE}<table{_class('sortable' * sortable)}>\n<thead><tr>{heads}</tr></thead>"
    return f"{opening}\n<tbody>\n{body}</tbody></table></div>\n"


def beside(*parts: str) -> str:
    """Markup side by side where there is room."""
    return f'<div class="beside">\n{"".join(f"<div>{part}</div>" for part in parts)}</div>\n'


def picture(png: bytes, *, alt: str, caption: str) -> str:
    """A figure that holds its picture.

    Raises:
        UserError: the bytes are no PNG file.
    """
    if png[:8] != _PNG or png[12:16] != b"IHDR" or len(png) < 33:
        raise UserError("is no PNG file: draw it again")
    width, height = struct.unpack(">II", png[16:24])
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    broad = _class("broad" * (width > _LEGIBLE))
    return (
        f'<figure>{_WIDE}<img{broad} src="{source}" alt="{escape(alt)}" width="{width}" height="{height}">'
        f"</div><figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def markdown(text: str) -> str:
    """This project's tables and reports: CommonMark and pipe tables, no links, pictures or HTML.

    >>> markdown("**<b>**")
    '<p><strong>&lt;b&gt;</strong></p>\\n'
    """
    tokens = _MARKDOWN.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h4"
        style = token.attrs.pop("style", "")  # the page's policy refuses it
        if "right" in style:
            token.attrs["class"] = "number"
    return _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})


def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "reference", "html_inline", "html_block", "entity"])
    parser.add_render_rule("table_open", lambda *_: f"{_WIDE}<table>\n")
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


_WIDE = '<div class="wide">'  # scrolls where the window is narrow
_LEGIBLE = 544  # pixels (34 rem): no picture is shrunk below that
_MARKDOWN = _markdown()


def document(title: str, body: str) -> bytes:
    """The whole page, in UTF-8."""
    style, script = ((Path(__file__).parent / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}</main>
<script>{script}</script>
</body>
</html>
""".encode("utf-8", "replace")  # a lone surrogate, from a file's odd name, has no UTF-8


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""


def _is_number(cell: Cell) -> bool:
    return isinstance(cell.value, int | float) or cell.text == DASH


def _cell(cell: Cell) -> str:
    shown = escape(cell.text)
    if cell.link:
        shown = f'<a href="#{escape(cell.link)}">{shown}</a>'
    kind = " ".join(filter(None, ["number" * _is_number(cell), cell.kind]))
    key = "" if cell.value is None else f' data-value="{escape(cell.value)}"'
    return f"<td{_class(kind)}{key}>{shown}</td>"
