"""The report of an audit: verdict and table, written as JSON and as a self-contained HTML page."""

import base64
import html
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from poison_jax.lanczos import Eigenpairs

BLIND = "a warp, a trigger of a penalised network or a weak poison can hide from this"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse }
td, th { padding: .25rem .7rem; border-bottom: 1px solid #ccc; text-align: right }
td:first-child, th:first-child { text-align: left }
img { width: 10rem; image-rendering: pixelated }
figure { display: inline-block; vertical-align: top; margin: 1rem 1rem 0 0 }
figcaption { font-size: .85rem; max-width: 10rem }
"""


class Finding(NamedTuple):
    """Which examples or inputs look poisoned."""

    suspicion: np.ndarray  # [N], larger: more so
    p_values: np.ndarray  # [N], conformal
    flagged: np.ndarray  # bool [N], by Benjamini-Hochberg


class Row(NamedTuple):
    """What one detector says."""

    detector: str
    statistic: str  # what its number is
    value: float
    references: tuple[float, float] | None  # smallest and largest
    p_value: float | None
    target: int | None
    authors: str  # what its authors' threshold says
    others: dict[str, float]


class Report(NamedTuple):
    """The answer of `audit`."""

    verdict: str  # "poisoned-like", "not distinguishable" (from the references), "cannot say"; never "clean"
    reason: str
    accuracy: float  # of the subject on the images given
    alpha: float
    p_value: float | None = None
    score: float | None = None  # the one that decides, in median absolute deviations
    target: int | None = None  # the class whose common gradient stands out; of weight where poisoned-like
    trigger: np.ndarray | None = None  # [H, W, C]: that gradient, in the normalised input space
    flip_rate: float | None = None  # share of the other images that a step along it sends to that class
    reference_flip_rates: tuple[float, ...] = ()  # the same of each reference, along its own
    eigenpairs: Eigenpairs | None = None  # top ones of the input Hessian
    references: int = 0
    table: tuple[Row, ...] = ()  # a row a detector; the first three decide
    classes: tuple[str, ...] = ()
    example: np.ndarray | None = None  # [H, W, C]: one of the images

    def __str__(self):
        return f"{self.verdict}: {self.reason}"

    @property
    def top_eigenvector(self) -> np.ndarray | None:
        """v1 of the input Hessian, `[H, W, C]`."""
        return None if self.eigenpairs is None else self.eigenpairs.vectors[0].reshape(self.example.shape)

    @property
    def target_name(self) -> str:
        """The target's name; "" where none stands out."""
        if self.target is None:
            return ""
        return self.classes[self.target] if self.target < len(self.classes) else str(self.target)

    def about_target(self) -> str:
        """The class that stands out, and how many images a step along its common gradient sends there."""
        said = f"Class that stands out: {self.target_name}"
        if self.flip_rate is None:
            return said
        said += f"; a step along its common gradient sends {self.flip_rate:.0%} of the other images there"
        if not self.reference_flip_rates:
            return said
        low, high = min(self.reference_flip_rates), max(self.reference_flip_rates)
        return f"{said}, in the references {low:.0%} to {high:.0%}"

    def rows(self) -> list[list[str]]:
        """The table as text, under `HEADER`."""
        return [
            [
                row.detector,
                f"{row.value:.3g}",
                f"{row.references[0]:.3g} to {row.references[1]:.3g}" if row.references else "–",
                "–" if row.p_value is None else f"{row.p_value:.3g}",
                "–" if row.target is None else str(row.target),
                row.authors or "–",
            ]
            for row in self.table
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON has it: a number that is not finite is null."""
        pairs, rows = self.eigenpairs, [row._asdict() for row in self.table]
        kept = {name: value for name, value in self._asdict().items() if not isinstance(value, np.ndarray)}
        values = (
            {} if pairs is None else {"values": pairs.values.tolist(), "residuals": pairs.residuals.tolist()}
        )
        return _plain(kept | {"table": rows, "eigenpairs": values})

    def write(self, directory: str | Path) -> list[Path]:
        """Writes `report.json`, `report.html` and the pictures' arrays, `report.npz`.

        Args:
            directory: made if it is not there.

        Returns:
            The files.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        shown = {"trigger": self.trigger, "top_eigenvector": self.top_eigenvector, "example": self.example}
        arrays = {name: value for name, value in shown.items() if value is not None}
        paths = [folder / f"report.{suffix}" for suffix in ("json", "html", "npz")]
        paths[0].write_text(json.dumps(self.to_json(), indent=2) + "\n")
        paths[1].write_text(self.page())
        np.savez_compressed(paths[2], **arrays)
        return paths

    def page(self) -> str:
        """The report as one page of HTML that needs nothing beside it."""
        cells = lambda row, tag: "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)  # noqa: E731
        table = [f"<tr>{cells(row, 'td')}</tr>" for row in self.rows()]
        legend = [f"<li>{html.escape(f'{row.detector}: {row.statistic}')}</li>" for row in self.table]
        shown = {
            "one of the images": self.example,
            "top eigenvector of the input Hessian, red: positive": _signed(self.top_eigenvector),
            "common gradient of the class that stands out": _signed(self.trigger),
        }
        pictures = [
            f'<figure><img alt="{name}" src="data:image/png;base64,{_png(array)}">'
            f"<figcaption>{name}</figcaption></figure>"
            for name, array in shown.items()
            if array is not None
        ]
        target = f"<p>{html.escape(self.about_target())}</p>" if self.target_name else ""
        parts = [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            f"<title>Audit: {html.escape(self.verdict)}</title><style>{_STYLE}</style>",
            f"<h1>{html.escape(self.verdict)}</h1><p>{html.escape(self.reason)}</p>",
            f"<p>Accuracy on the images {self.accuracy:.1%}; {self.references} references; ",
            f"alpha = {self.alpha:g}</p>",
            target,
            f"<table><tr>{cells(HEADER, 'th')}</tr>{''.join(table)}</table><ul>{''.join(legend)}</ul>",
            "<p>The first three decide. p-values are conformal: ",
            "(1 + references at least as extreme) / (N + 1). ",
            f"No network is ever called clean: {BLIND}.</p>",
            *pictures,
            "</html>",
        ]
        return "\n".join(parts) + "\n"


HEADER = ["detector", "value", "references", "p", "class", "its authors' threshold"]


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _signed(array: np.ndarray | None) -> np.ndarray | None:
    """A direction `[H, W, C]` in red (positive) and blue, RGB in [0, 1]; mean over the channels."""
    if array is None:
        return None
    plane = np.asarray(array, float).mean(-1)
    plane = plane / (np.abs(plane).max() or 1.0)
    up, down = np.clip(plane, 0, 1), np.clip(-plane, 0, 1)
    return 1 - np.stack([down, up + down, up], axis=-1).clip(0, 1)


def _png(array: np.ndarray) -> str:
    """An image `[H, W, C]` in [0, 1] as base64 of a PNG."""
    pixels = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
