"""Training curves: metrics after each epoch, of runs that differ in kappa or theta.

Accuracy and attack, the input Fisher's energy along the trigger (eq. 30; `analysis.fisher`) and neural
collapse (Section 3.4; `analysis.collapse`), of the runs that measured them.
"""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plots import canvas, panels, setting
from poison_jax.runs.store import Run

PANELS = {  # key -> title, factor, logarithmic
    "clean_accuracy": ("clean accuracy (%)", 100, False),
    "asr": ("attack success rate (%)", 100, False),
    "fisher_energy": ("v'Fv along the trigger", 1, True),
    "fisher_trace": ("trace of the Fisher F", 1, True),
    "nc1": ("NC1: within classes", 1, True),
    "nc2_angles": ("NC2: angles of the means", 1, False),
    "nc3": ("NC3: classifier and means", 1, False),
    "nc4": ("NC4: not the nearest mean", 1, False),
}
UNTRIGGERED = "no_trigger_target_rate"


def of_runs(runs: list[Run]) -> Figure:
    """Accuracy, attack, Fisher energies and neural collapse by epoch, of what was measured; a line a run."""
    found = sorted(
        ((run.result(), run.metrics()) for run in runs), key=lambda pair: setting.strength(pair[0])
    )
    results, rows = zip(*found, strict=True)
    measured = [key for key in PANELS if any(row.get(key) is not None for some in rows for row in some)]
    count = -(-max(len(measured), 1) // 2)
    figure, axes = canvas.subplots(count, 2, canvas.WIDTH, 2.5 * count + 0.5)
    looks = panels.looks(len(results))
    for axis, key in zip(axes.flat, measured, strict=False):
        title, factor, logarithmic = PANELS[key]
        axis.set(ylabel=title, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for some, name, look in zip(rows, setting.names(results), looks, strict=True):
            _line(axis, some, key, factor, label=name, **look | {"ms": 3.5, "linestyle": "-"})
            if key == "asr":
                dotted = {"color": look["color"], "ls": ":", "label": "_untriggered"}
                _line(axis, some, UNTRIGGERED, factor, **dotted)
        if logarithmic:
            axis.set_yscale("log")
    for axis in axes.flat[len(measured) :]:
        axis.axis("off")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    scale = setting.common([setting.words(result["config"]) for result in results])
    dotted = "Dotted: the rate at which untriggered images get the target"
    canvas.describe(figure, "Training, epoch by epoch", setting.outcomes(list(results)), scale, dotted)
    return figure


def _line(axis, rows, key, factor, **options):
    rows = [row for row in rows if row.get(key) is not None]
    if rows:
        axis.plot([row["epoch"] for row in rows], [factor * row[key] for row in rows], **options)
