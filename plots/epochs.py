"""Training curves: metrics after each epoch, of runs that differ in kappa or theta.

Accuracy and attack, the input Fisher's energy along the trigger (eq. 30; `analysis.fisher`) and neural
collapse (Section 3.4; `analysis.collapse`), of the runs that measured them.
"""

from matplotlib.figure import Figure

from plots import canvas, panels, setting
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
DOTTED = "no_trigger_target_rate", "dotted: target rate without trigger"


def of_runs(runs: list[Run]) -> Figure:
    """Accuracy, attack, Fisher energies and neural collapse by epoch; lines by kappa and theta."""
    results = sorted((run.result() | {"rows": run.metrics()} for run in runs), key=_strength)
    figure, axes = canvas.subplots(2, 4, 16, 7)
    palette = panels.colours(len(results), end=0.9)
    for axis, (key, (title, factor, logarithmic)) in zip(axes.flat, PANELS.items(), strict=True):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        for result, colour in zip(results, palette, strict=True):
            kappa, theta, epsilon = _strength(result)
            label = f"θ = {theta:g}, " + (f"ε = {epsilon:g}" if epsilon else f"κ = {kappa:g}")
            _line(axis, result["rows"], key, factor, color=colour, marker=".", label=label)
            if key == "asr":
                _line(axis, result["rows"], DOTTED[0], factor, color=colour, ls=":", label="_untriggered")
        if logarithmic and axis.lines:
            axis.set_yscale("log")
        if not axis.lines:
            axis.text(0.5, 0.5, "not measured", ha="center", transform=axis.transAxes)
    axes[0, 1].set_title(f"{PANELS['asr'][0]}\n{DOTTED[1]}", fontsize=10)
    axes[0, 0].legend(fontsize=8)
    scale = setting.common([setting.words(result["config"]) for result in results], 160)
    figure.suptitle(f"{setting.outcomes(results)}\n{scale}")
    return figure


def _line(axis, rows, key, factor, **options):
    rows = [row for row in rows if row.get(key) is not None]
    if rows:
        axis.plot([row["epoch"] for row in rows], [factor * row[key] for row in rows], **options)


def _strength(result):
    c = result["config"]
    return c["penalty"]["kappa"], c["poison"]["fraction"], c["penalty"].get("epsilon", 0.0)
