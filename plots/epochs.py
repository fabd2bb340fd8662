"""What training does, epoch by epoch, in runs of several kappa or theta: `python plots/epochs.py RUN ...`.

Accuracy and attack, the input Fisher's energy along the trigger (eq. 30; `analysis.fisher`) and neural
collapse (Section 3.4; `analysis.collapse`), of the runs that measured them.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from plots import command, foreign
from poison_jax.runs.store import Run

PANELS = {  # key -> title, factor, logarithmic
    "clean_accuracy": ("clean accuracy (%)", 100, False),
    "asr": ("attack success rate (%)", 100, False),
    "fisher_energy": ("Fisher energy v'Fv along the trigger", 1, True),
    "fisher_trace": ("trace of the Fisher, mean |∇ₓL|²", 1, True),
    "nc1": ("NC1: variability within classes", 1, True),
    "nc2_angles": ("NC2: angles of the class means", 1, False),
    "nc3": ("NC3: classifier against class means", 1, False),
    "nc4": ("NC4: decisions unlike the nearest mean", 1, False),
}


def draw(runs: list[Run], file: Path) -> list[Path]:
    """Draws all runs into one file, lines from light to dark by kappa and theta."""
    results = sorted((run.result() | {"rows": run.metrics()} for run in runs), key=_strength)
    figure, axes = plt.subplots(2, 4, figsize=(16, 7), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(results)))
    for axis, (key, (title, factor, logarithmic)) in zip(axes.flat, PANELS.items(), strict=True):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        for result, colour in zip(results, colours, strict=True):
            rows = [row for row in result["rows"] if row.get(key) is not None]
            kappa, theta, epsilon = _strength(result)
            label = f"θ = {theta:g}, " + (f"ε = {epsilon:g}" if epsilon else f"κ = {kappa:g}")
            if rows:
                values = [factor * row[key] for row in rows]
                axis.plot([row["epoch"] for row in rows], values, color=colour, marker=".", label=label)
        if logarithmic and axis.lines:
            axis.set_yscale("log")
        if not axis.lines:
            axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes)
    axes[0, 0].legend(fontsize=8)
    c = results[0]["config"]
    count = f"{c['data']['n_train']:,}" if c["data"]["n_train"] else "all"
    figure.suptitle(
        f"{foreign.literal(c['data']['name'])}, {count} training images, PreResNet-{c['model']['depth']}, "
        f"{c['poison']['trigger']} trigger, {c['poison']['mode']} poison"
    )
    return command.write(figure, file, dpi=100)


def _strength(result):
    c = result["config"]
    return c["penalty"]["kappa"], c["poison"]["fraction"], c["penalty"].get("epsilon", 0.0)


if __name__ == "__main__":
    command.of_runs(draw, "epochs.png", __doc__)
