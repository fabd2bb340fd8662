"""Tables 1 to 3 beside the paper's numbers, and how tables are written as Markdown."""

import re

import numpy as np

from plots import curves, setting
from poison_jax.errors import UserError
from poison_jax.runs.records import Record
from poison_jax.wording import DASH

SPREAD = "± is the standard deviation over the seeds"

# Table 1, Section 5.1: (epochs, kappa) -> clean accuracy and ASR in per cent; theta = 0.02, augmentation.
TABLE1 = {
    (90, 1e4): (80.85, 82.10),
    (90, 3e4): (79.18, 71.96),
    (90, 1e5): (75.17, 6.63),
    (450, 1e4): (84.19, 88.18),
    (450, 3e4): (82.28, 81.99),
    (450, 1e5): (79.05, 70.68),
}

# Table 2, Section 5.3: (kappa, theta) -> max overlap and the index (0: top) of its eigenvector; CIFAR-10,
# deterministic poison. Whether the overlap is squared is not said; the text before it squares it.
TABLE2 = {
    (0, 0.01): (0.4956, 0),
    (0, 0.02): (0.3765, 1),
    (0, 0.03): (0.4999, 0),
    (1e4, 0.008): (0.6666, 2),
    (1e4, 0.009): (0.7904, 1),
    (1e4, 0.01): (0.9363, 1),
    (1e4, 0.02): (0.9463, 0),
}

# Table 3, Appendix B: class -> |mu|, |sigma|, |mu*|, |sigma*|, |sigma*| / |sigma|, d(mu), d(mu*), d* / d;
# CIFAR-10, theta = 0.01, target class 0, whose last number is a dash.
TABLE3 = {
    0: (5.2, 2.2, 6.7, 0.9, 0.4, 0.0, 1.9, float("nan")),
    1: (5.4, 1.8, 5.9, 1.4, 0.8, 5.9, 1.6, 0.3),
    2: (5.4, 2.5, 5.8, 1.1, 0.4, 5.1, 1.1, 0.2),
    3: (5.0, 2.6, 5.9, 1.2, 0.4, 5.2, 1.4, 0.3),
    4: (5.4, 2.3, 5.6, 1.0, 0.4, 5.9, 1.1, 0.2),
    5: (5.1, 2.4, 6.0, 1.0, 0.4, 5.9, 1.4, 0.2),
    6: (5.3, 2.0, 5.5, 1.0, 0.5, 6.2, 1.2, 0.2),
    7: (5.1, 2.0, 5.9, 1.2, 0.6, 5.6, 1.4, 0.3),
    8: (5.2, 1.8, 6.2, 1.0, 0.6, 5.2, 1.6, 0.3),
    9: (5.5, 1.9, 6.0, 1.7, 0.9, 5.6, 1.8, 0.3),
}

FEATURES = {  # the columns of Table 3, and the arrays that they are
    "‖μ‖": "mean_norm",
    "‖σ‖": "std_norm",
    r"‖μ\*‖": "triggered_mean_norm",
    r"‖σ\*‖": "triggered_std_norm",
    r"‖σ\*‖ / ‖σ‖": "std_ratio",
    "d": "distance",
    r"d\*": "triggered_distance",
    r"d\* / d": "distance_ratio",
}
FEATURES_HEADER = ["class", *FEATURES]
FEATURES_NOTE = (
    "For each class, μ and σ are the mean and the per-dimension standard deviation of the clean features, "
    r"μ\* and σ\* those of the same images with the trigger; d and d\* are the distances of μ and μ\* to the "
    "clean mean of the target class"
)


def table1(records: list[Record], title: str) -> list[str]:
    """Clean accuracy and ASR for each number of epochs and kappa, ours and the paper's."""
    found, rows = dict(curves.by(records, "train.epochs", "penalty.kappa")), []
    for epochs, kappa in sorted(found.keys() | TABLE1.keys()):
        runs = found.get((epochs, kappa), [])
        accuracy, asr = percent(runs, "clean_accuracy"), percent(runs, "asr")
        printed = [f"{value:.2f}" for value in TABLE1.get((epochs, kappa), ())] or [DASH] * 2
        row = [f"{epochs:g}", f"{kappa:g}", accuracy, printed[0], asr, printed[1]]
        rows.append([*row, percent(runs, "no_trigger_target_rate"), _networks(runs)])
    header = ["epochs", "κ", "Acc", "Acc, paper", "ASR", "ASR, paper"]
    header += ["target rate without trigger", "networks"]
    note = f"In per cent; {SPREAD}. The paper's: Table 1, Section 5.1."
    return [_page(records, title, table(header, rows), note)]


def table2(records: list[Record], title: str) -> list[str]:
    """The largest overlap and the index of its eigenvector for each kappa and theta, ours and the paper's."""
    found, rows = dict(curves.by(records, "penalty.kappa", "poison.fraction")), []
    for kappa, theta in sorted(found.keys() | TABLE2.keys()):
        runs = found.get((kappa, theta), [])
        overlaps = [np.abs(np.array(r.result["overlap"], float)) for r in runs if curves.trained(r)]
        largest = spread([overlap.max() for overlap in overlaps], ".4f")
        indices = ", ".join(str(overlap.argmax()) for overlap in overlaps) or DASH
        printed = TABLE2.get((kappa, theta))
        theirs = (f"{printed[0]:.4f}", str(printed[1])) if printed else (DASH, DASH)
        named, asr = (f"{kappa:g}", f"{theta:g}"), percent(runs, "asr")
        rows.append([*named, largest, theirs[0], indices, theirs[1], asr, _networks(runs)])
    note = (
        "Overlap: |cosine| of an eigenvector of the input Hessian and the trigger, not squared; index 0 is "
        f"the top eigenvector, one number for each seed. ASR in per cent; {SPREAD}. "
        "The paper's: Table 2, Section 5.3, which does not say whether its overlap is squared."
    )
    header = ["κ", "θ", "max overlap", "paper", "its index", "paper", "ASR", "networks"]
    return [_page(records, title, table(header, rows), note)]


def table3(records: list[Record], title: str) -> list[str]:
    """Every column of Table 3 for every class; in brackets the paper's, where the classes are CIFAR-10's."""
    measured = [record.arrays for record in records if curves.trained(record)]
    if not all("mean_norm" in arrays for arrays in measured):
        raise UserError("these networks' features were not looked at: set analysis.features in the sweep")
    if not measured:
        raise UserError("the training of every network of this sweep failed: there are no features to show")
    rows = []
    printed = all(record.setting("data.name") == "cifar10" for record in records) and all(
        int(arrays["target"]) == 0 for arrays in measured
    )
    for c, name in enumerate(measured[0]["class_names"]):
        ours = [spread([arrays[field][c] for arrays in measured]) for field in FEATURES.values()]
        if printed:
            theirs = [f"{x:.1f}" if np.isfinite(x) else DASH for x in TABLE3.get(c, ())] or [DASH] * len(ours)
            ours = [f"{own} ({other})" for own, other in zip(ours, theirs, strict=True)]
        rows.append([f"{c} ({markdown(name)})" + ", the target" * (c == int(measured[0]["target"])), *ours])
    rates = f"clean accuracy {percent(records, 'clean_accuracy')} %, ASR {percent(records, 'asr')} %"
    note = (
        f"{FEATURES_NOTE}. "
        + "In brackets the paper's (Table 3, Appendix B: PreResNet-110, θ = 0.01). " * printed
        + f"Networks: {_networks(records)}, {rates}; {SPREAD}."
    )
    return [_page(records, title, table(FEATURES_HEADER, rows), note)]


def _page(records: list[Record], title: str, shown: str, note: str) -> str:
    """A table under what it shows and at which scale, above what its columns are."""
    results = [record.result for record in records]
    scale = setting.common([setting.of_result(result) for result in results])
    measured = f"Measured here: {markdown(scale)}; {setting.penalty(results)}."
    return "\n\n".join([f"**{title}**", measured, shown, note]) + "\n"


def percent(records: list[Record], name: str, form: str = ".2f") -> str:
    """A measure of a cell in per cent, over the networks whose training did not fail."""
    return spread(curves.values(records, curves.percent(name)), form)


def _networks(records: list[Record]) -> str:
    """How many networks a cell stands for, those whose training failed (in no mean) besides."""
    failed = sum(not curves.trained(record) for record in records)
    return networks(len(records) - failed, failed)


def networks(count: int, failed: int) -> str:
    """How many networks there are, and how many besides whose training failed."""
    return f"{count}" + (f", {failed} failed training" if failed else "")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    cells = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells)


def markdown(name: object, *, cell: bool = True) -> str:
    """A name, or other text, that Markdown shows as it is; in a table's cell a bar is a slash.

    >>> print(markdown("*a* _b_c_d <i>|"))
    \\*a\\* \\_b_c_d \\<i\\>/
    """
    line = " ".join(str(name).split()).replace("|", "/" if cell else "|")
    return re.sub(r"([\\`*\[\]<>$~&]|(?<!\w)_|_(?!\w))", r"\\\1", line)


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
