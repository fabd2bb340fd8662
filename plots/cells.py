"""The cells of a table, from records: those of several seeds are one cell."""

from plots import curves, setting, tabular
from poison_jax.runs.records import Record


def by(records: list[Record], keys: tuple[str, ...]) -> dict[tuple, list[Record]]:
    """The records by their values of some keys of the config."""
    found: dict[tuple, list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record.setting(key) for key in keys), []).append(record)
    return found


def percent(records: list[Record], name: str) -> str:
    """A measure of a cell in per cent, over the networks whose training did not fail."""
    measure = curves.percent(name)
    values = [measure(record.result) for record in records if curves.trained(record)]
    return tabular.spread([value for value in values if value is not None])


def count(records: list[Record]) -> str:
    """How many networks a cell stands for, those whose training failed (in no mean) besides."""
    failed = sum(not curves.trained(record) for record in records)
    return f"{len(records) - failed}" + (f", {failed} failed training" if failed else "")


def text(records: list[Record], heading: str, table: list[str], note: str) -> str:
    """A table under what it shows and at which scale, above what its columns are."""
    scale = setting.common([record.result for record in records], 10**6)
    measured = f"Measured here: {scale}; {setting.penalty([record.result for record in records])}."
    return "\n".join([f"**{heading}**", "", measured, "", *table, "", note]) + "\n"
