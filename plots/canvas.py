"""The look of the figures: the project's own style, whatever the user's matplotlib settings are.

Figures are `matplotlib.figure.Figure`s without pyplot, so no backend is chosen or needed. What a figure
shows, at which settings and how it came out, is its caption: its label, and in the file's metadata.
"""

import contextlib
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter
from PIL import Image

from poison_jax.runs import files

STYLE = Path(__file__).parent / "project.mplstyle"
WIDTH = 6.8  # inches, of a page; see STYLE
# Keys of a PNG file's text: the digest of what it was drawn from, and the caption.
SOURCE, CAPTION = "Source", "Description"


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Within it figures are made and written in the project's style, not the user's own."""
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name: there is a box in its place
        yield


RUN, SWEEP = (".png", ".svg"), (".png", ".svg", ".pdf")  # suffixes of a run's figures, of a sweep's


def blank(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def describe(figure: Figure, *sentences: str) -> None:
    """Gives a figure its caption; empty sentences are left out, prose begins with a capital."""
    stated = (re.sub("^[a-z](?=[a-z]* )", lambda first: first[0].upper(), said) for said in sentences if said)
    figure.set_label(" ".join(f"{said.rstrip('.')}." for said in stated))


def caption(content: Figure | bytes) -> str:
    """The caption of a figure, or of the PNG file of one; "" if it has none."""
    if isinstance(content, Figure):
        return content.get_label()
    with Image.open(io.BytesIO(content)) as image:
        return str(image.info.get(CAPTION, ""))


def subplots(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes `[rows, columns]`."""
    figure = blank(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False)


def render(figure: Figure, suffix: str = "png", source: str = "") -> bytes:
    """A figure as the content of a file; the same figure is the same bytes.

    Args:
        figure: to write.
        suffix: `png`, `svg` or `pdf`.
        source: what it was drawn from, for a PNG file to hold.
    """
    stream = io.BytesIO()
    with settings():
        for axes in figure.findobj(Axes):
            for axis in (axes.xaxis, axes.yaxis):
                _plain_numbers(axis)
        metadata = {
            "png": {SOURCE: source, CAPTION: caption(figure)},
            "svg": {"Date": None, "Description": caption(figure)},
            "pdf": {"CreationDate": None, "Subject": caption(figure)},
        }
        figure.savefig(stream, format=suffix, metadata=metadata[suffix])
    return stream.getvalue()


def source(results: Iterable[files.Json]) -> str:
    """The digest of the results that a figure is drawn from, but for the time that they took."""
    timeless = ({k: v for k, v in result.items() if k != "wall_seconds"} for result in results)
    texts = sorted(json.dumps(files.plain(result), sort_keys=True) for result in timeless)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def save(
    parts: Iterable[tuple[str, Figure | str]],
    folder: Path,
    *suffixes: str,
    results: Iterable[files.Json] = (),
) -> list[Path]:
    """Writes figures and tables, each file whole or not at all.

    Args:
        parts: of each the name of its files, and a figure or Markdown.
        folder: for the files; made if it is not there.
        suffixes: of a figure's files, `.png`, `.svg` or `.pdf`; Markdown is `.md`.
        results: what they are drawn from.

    Returns:
        A file of each part: of a figure that of the first suffix, the others lie beside it.
    """
    digest, paths = source(results), []
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts:
        for suffix in (".md",) if isinstance(part, str) else suffixes:
            content = part.encode() if isinstance(part, str) else render(part, suffix[1:], digest)
            files.write(folder / f"{name}{suffix}", content)
        paths.append(folder / f"{name}{'.md' if isinstance(part, str) else suffixes[0]}")
    return paths


def _plain_numbers(axis: Axis) -> None:
    """Numbers of a logarithmic axis as text: matplotlib's own are formulas.

    Powers of ten; where the axis is short and they are too few, 1, 2, 5, 10 in plain numbers.
    """
    if isinstance(axis.get_minor_formatter(), LogFormatter):
        axis.set_minor_formatter(NullFormatter())
    if not isinstance(axis.get_major_formatter(), LogFormatter):
        return
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and high < 300 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
    else:
        axis.set_major_formatter(lambda value, _: power_of_ten(value))


def power_of_ten(value: float) -> str:
    """A power of ten as a label.

    >>> power_of_ten(1e-5), power_of_ten(-1e4), power_of_ten(100), power_of_ten(0)
    ('10⁻⁵', '−10⁴', '100', '0')
    """
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:g}"
    exponent = str(round(np.log10(abs(value)))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return ("−" if value < 0 else "") + f"10{exponent}"
