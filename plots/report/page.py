"""One self-contained HTML page: tables, pictures and Markdown as markup, no resource from elsewhere.

Every function takes plain text and returns markup, so that nothing from a run is read as markup. Should
something be all the same: the page's policy runs no script but its own, and loads nothing.
"""

import base64
import hashlib
import html
import itertools
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from poison_jax.errors import UserError

DASH = "–"  # where there is no value
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


def section(title: str, body: str, *, id: str = "", level: int = 2) -> str:
    """Markup under a heading, which can be linked to where it has an id."""
    own = f' id="{escape(id)}"' if id else ""
    return f"<section{own}>\n<h{level}>{escape(title)}</h{level}>\n{body}</section>\n"


def fold(title: str, body: str) -> str:
    """Markup that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{body}</details>\n"


def preformatted(text: str) -> str:
    """Lines as they are."""
    return f"<pre>{escape(text)}</pre>\n"


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
    return _frame(heads, body, _class("sortable" * sortable))


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
    return (
        f'<figure><img src="{source}" alt="{escape(alt)}" width="{width}" height="{height}" decoding="async">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def markdown(text: str) -> str:
    """What this project's tables are written in: pipe tables, headings, code, paragraphs; the rest is text.

    >>> markdown("**<b>**")
    '<p><strong>&lt;b&gt;</strong></p>\\n'
    """
    result, lines = [], text.splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith("```"):
            result.append(preformatted("\n".join(_take(lines, lambda line: not line.startswith("```")))))
            del lines[:1]
        elif line.lstrip().startswith("|") and lines and re.fullmatch(r"[\s|:-]*-[\s|:-]*", lines[0]):
            right = [mark.endswith(":") for mark in _split(lines.pop(0))]
            result.append(_pipe_table(line, right, _take(lines, lambda line: line.lstrip().startswith("|"))))
        elif heading := re.fullmatch(r"#{1,6}\s+(.*)", line):
            result.append(f"<h4>{_inline(heading[1])}</h4>\n")
        elif line.strip():
            rest = _take(lines, lambda line: line.strip() and not re.match(r"\s*\||#|```", line))
            result.append(f"<p>{_inline(' '.join([line, *rest]))}</p>\n")
    return "".join(result)


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


def _take(lines: list[str], wanted) -> list[str]:
    """Removes and returns the lines at the front that are wanted."""
    count = next((i for i, line in enumerate(lines) if not wanted(line)), len(lines))
    taken = lines[:count]
    del lines[:count]
    return taken


def _split(row: str) -> list[str]:
    """The cells of a row of a pipe table."""
    row = re.sub(r"(?<!\\)\|$", "", row.strip().removeprefix("|"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]


def _pipe_table(header: str, right: list[bool], rows: list[str]) -> str:
    def line(tag: str, row: str) -> str:
        cells = _split(row)
        kinds = [_class("number" * (i < len(right) and right[i])) for i in range(len(cells))]
        return "".join(
            f"<{tag}{kind}>{_inline(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>\n" for row in rows)
    return _frame(line("th", header), body)


def _frame(heads: str, body: str, kind: str = "") -> str:
    """A table that scrolls where the window is narrow."""
    return (
        f'<div class="wide"><table{kind}>\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _inline(text: str) -> str:
    """Escaped first: what is put in afterwards are the only tags."""
    text = escape(re.sub(r"\\([|*_`\\])", r"\1", text))
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*(\S|\S.*?\S)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"(?<![\w*])\*([^\s*]|[^\s*][^*]*[^\s*])\*(?![\w*])", r"<em>\1</em>", text)
