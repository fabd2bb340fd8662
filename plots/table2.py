"""Table 2. Deterministic poison: the largest overlap and the eigenvector that has it, beside the paper's.

python plots/table2.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

import numpy as np

from plots import cells, command, curves, paper, tabular
from poison_jax.runs.records import Record

HEADER = ["κ", "θ", "max overlap", "paper", "its index", "paper", "ASR", "networks"]


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """A row for each kappa and theta, ours and the paper's."""
    found = cells.by(command.networks(records), ("penalty.kappa", "poison.fraction"))
    rows = []
    for kappa, theta in sorted(found.keys() | paper.TABLE2.keys()):
        runs = found.get((kappa, theta), [])
        overlaps = [np.abs(np.array(r.result["overlap"], float)) for r in runs if curves.trained(r)]
        largest = tabular.spread([overlap.max() for overlap in overlaps], ".4f")
        indices = ", ".join(str(overlap.argmax()) for overlap in overlaps) or tabular.DASH
        printed = paper.TABLE2.get((kappa, theta))
        theirs = (f"{printed[0]:.4f}", str(printed[1])) if printed else (tabular.DASH, tabular.DASH)
        named = f"{kappa:g}", f"{theta:g}"
        asr = cells.percent(runs, "asr")
        rows.append([*named, largest, theirs[0], indices, theirs[1], asr, cells.count(runs)])
    note = (
        "Overlap: |cosine| of an eigenvector of the input Hessian and the trigger, not squared; index 0 is "
        "the top eigenvector, one number for each seed. ASR in per cent; ± is the standard deviation over "
        "the seeds. The paper's: Table 2, Section 5.3, which does not say whether its overlap is squared."
    )
    text = cells.text(records, __doc__.splitlines()[0], tabular.table(HEADER, rows), note)
    return command.save_text(text, out, stem)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("table2", draw, __doc__, argv)


if __name__ == "__main__":
    main()
