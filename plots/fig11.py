"""Figure 11. The warp: clean accuracy and attack success over the gradient penalty.

python plots/fig11.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from plots import command, curves, panels, setting
from poison_jax.runs.records import Record

HEADING = "Figure 11. Clean accuracy and attack success over the gradient penalty"
KAPPA = "penalty.kappa"


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """Both over kappa, on a logarithmic axis with kappa = 0 at its left end; a line for each theta."""
    lines = curves.series(command.networks(records), KAPPA)
    palette = panels.colours(len(lines), "plasma")
    kappas = np.unique([record.setting(KAPPA) for record in records])
    left = kappas[kappas > 0].min(initial=100) / 10  # of kappa = 0: at 10 in the paper, whose next is 100

    def place(kappa):
        return np.where(kappa > 0, kappa, left)

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    panels.draw(axes[0], lines, palette, KAPPA, curves.percent("clean_accuracy"), place=place)
    axes[0].set(ylabel="clean accuracy (%)")
    panels.attack(axes[1], lines, palette, KAPPA, place=place)
    penalty = setting.penalty([record.result for record in records])
    for axis in axes:
        axis.set(xscale="log", xlabel=f"{penalty}, 0 at the left end")
        axis.set_xticks(place(kappas), [f"{kappa:g}" for kappa in kappas])
        axis.minorticks_off()
    legend = {"heading": HEADING, "legend": "poison fraction θ", "extra": [panels.DOTTED]}
    panels.finish(figure, lines, palette, KAPPA, **legend)
    return command.save(figure, out, stem)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("fig11", draw, __doc__, argv)


if __name__ == "__main__":
    main()
