"""Table 3. Pre-fc features of clean and triggered test images, beside the paper's.

python plots/table3.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

import numpy as np

from plots import cells, command, curves, features, paper, tabular
from poison_jax.errors import UserError
from poison_jax.runs.records import Record


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """Every column for every class: ours, the paper's in brackets."""
    measured = [record.arrays for record in command.networks(records) if curves.trained(record)]
    if not all("mean_norm" in arrays for arrays in measured):
        raise UserError("these networks' features were not looked at: set analysis.features in the sweep")
    if not measured:
        raise UserError("the training of every network of this sweep failed: there are no features to show")
    rows = []
    for c, name in enumerate(measured[0]["class_names"]):
        ours = [
            tabular.spread([arrays[field][c] for arrays in measured]) for field in features.COLUMNS.values()
        ]
        theirs = [f"{x:.1f}" if np.isfinite(x) else tabular.DASH for x in paper.TABLE3.get(c, ())]
        theirs = theirs or [tabular.DASH] * len(ours)
        label = f"{c} ({name})" + ", the target" * (c == int(measured[0]["target"]))
        rows.append([label, *(f"{own} ({other})" for own, other in zip(ours, theirs, strict=True))])
    rates = ", ".join(
        f"{name} {cells.percent(records, key)} %"
        for name, key in (("clean accuracy", "clean_accuracy"), ("ASR", "asr"))
    )
    note = (
        r"For each class $c$, $\mu_c$ and $\sigma_c$ are the mean and the per-dimension standard deviation "
        r"of the clean features, $\mu_c^*$ and $\sigma_c^*$ those of the same images with the trigger; $d$ "
        "are distances to the clean mean of the target class. In brackets the paper's: Table 3, Appendix B. "
        f"Networks: {cells.count(records)}, {rates}; ± is the standard deviation over the seeds."
    )
    text = cells.text(records, __doc__.splitlines()[0], tabular.table(features.HEADER, rows), note)
    return command.save_text(text, out, stem)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("table3", draw, __doc__, argv)


if __name__ == "__main__":
    main()
