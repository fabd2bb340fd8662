"""Tables as Markdown and as aligned text."""

import numpy as np

DASH = "–"  # where there is no number


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    return [_row(header), _row([":--", *["--:"] * (len(header) - 1)]), *map(_row, rows)]


def aligned(header: list[str], rows: list[list[str]]) -> str:
    """The same for a fixed-width font."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ("   ".join(map(str.rjust, row, widths)) for row in (header, *rows))
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits; a dash where there is no number."""
    return f"{value:#.3g}".rstrip(".") if np.isfinite(value) else DASH


def spread(values: list[float], form: str = ".2f") -> str:
    """Mean ± standard deviation (of a sample: n - 1) over what is a number; of one value itself."""
    values = np.array(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return DASH
    mean = format(values.mean(), form)
    return f"{mean} ± {format(values.std(ddof=1), form)}" if values.size > 1 else mean


def _row(cells):
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
