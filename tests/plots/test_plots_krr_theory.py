"""The theory's figures are drawn from stored arrays alone, whatever zeros are in them."""

import numpy as np
import pytest

import plots
from plots import canvas, krr_theory, theorems
from poison_jax.runs import store
from poison_jax.theory import capacity, clones, filters, spectra, visibility
from poison_jax.theory.flow import PoisonedFlow

CURVES = {"spike_law.png", "twilight_zone.png", "lost_capacity.png", "filter.png", "fisher_decay.png"}
CURVES |= {"penalty_bounds.png", "transition.png", "far_clones.png", "images_needed.png"}
CONFIG = {
    "experiment": "krr_theory",
    "poison": {"target": 0, "trigger": "square"},
    "krr": {"lengthscale": 1.0, "ridge": 0.1},
}
KAPPAS = np.array([0.0, 0.1, 10.0])
rng = np.random.default_rng(0)


def some(*shape):
    """Random positive numbers with one zero, which no logarithmic axis can show."""
    values = rng.uniform(0.1, 1, shape)
    values.flat[-1] = 0
    return values


def curves():
    ratios, times = np.array([0.01, 0.1, 1.0]), np.linspace(0, 1, 4)
    spike_law = {"ratios": ratios, "m": np.array([1, 10]), "lengthscale": np.array(1.5)}
    for prefix in ("far", "near"):
        spike_law |= {f"{prefix}_{key}": some(3, 2) for key in ("efficacy", "spike")}
        spike_law[f"{prefix}_factor"] = some(3)
    eigenvalues = {f"{y}_{end}": -some(3) for y in ("target", "truth") for end in ("largest", "smallest")}
    residuals = ("df", "residual", "counterexample")
    fine = ("fine", "unpenalised", "exact", "remark", "paper")
    fisher = ("strong", "weak", "trace", "objective", "bound")
    return {
        "spike_law": spike_law,
        "twilight_zone": {"ratios": ratios, "efficacy": some(3), "spike": some(3), **eigenvalues},
        "lost_capacity": {"kappas": KAPPAS}
        | {f"{form}_{key}": some(3) for form in ("exact", "paper") for key in residuals},
        "filter_responses": {"omega": np.arange(2), "measured": some(2)} | {key: some(5) for key in fine},
        "penalty_bounds": {"kappas": KAPPAS}
        | {f"{kind}_{key}": some(3) for kind in ("cluster", "clones") for key in ("efficacy", "visibility")},
        "transition": {"shapes": np.array([[9, 3], [4, 4]]), "sizes": ratios, "fine": ratios}
        | {f"{key}_{i}": some(3) for key in ("law", "mean", "error") for i in range(2)},
        "far_clones": {
            "distances": ratios,
            "counts": np.array([1.0, 10.0]),
            "efficacy": some(3, 2),
            "changes": some(3, 2, 3),
            "mean_hessian": some(3, 2),
            "bounds": some(3, 3),
        },
        "images_needed": {
            "eigenvalues": np.array([0.9, 2.0]),
            "images": ratios,
            "fine": ratios,
            "needed": np.array([np.inf, 3.0]),
            **{key: some(2, 3) for key in ("law", "mean", "error")},
        },
        "fisher_decay": {"times": times, "kappas": KAPPAS} | {key: some(3, 4) for key in fisher},
    }


def images(lengths, ridges, m, points):
    """Laws, approach and defence; the poison does nothing at the last trigger point, or hurts itself."""
    laws = {"lengthscales": lengths, "ridges": ridges, "clones": m, "points": np.array([20, 64])}
    laws["median_distance"] = np.array(3.0)
    for key in ("efficacy", "spike"):
        for prefix in ("", "paper_", "exact_"):
            laws[prefix + key] = some(len(lengths), len(ridges), len(m), points)
    laws["efficacy"][..., 0] *= -1
    laws |= {f"clean_{key}": -some(len(lengths), len(ridges), points) for key in ("score", "curvature")}
    laws["clean_curvature"] *= -1
    laws["clean_accuracy"] = some(len(lengths), len(ridges))
    approach = {key: some(3, 4) for key in ("ratios", "efficacy", "spike", "full", "full_clean")}
    fits = [f"{kernel}_{kind}" for kernel in ("gaussian", "linear") for kind in ("clones", "cluster")]
    defence = {
        f"{fit}_{key}": some(3)
        for fit in fits
        for key in ("df", "accuracy", "score", "asr", "at_zeta", "efficacy", "visibility")
    }
    return {
        "laws": laws,
        "approach": approach | {"label": np.array([1.0, 0.1, 10])},
        "defence": defence
        | {"label": np.array([1.0, 0.1, 10, 20]), "kappas": KAPPAS, "always_rest": np.array(0.9)},
    }


@pytest.fixture
def finished(tmp_path):
    """Writes a finished run: the curves, and for each data set its arrays."""

    def write(**data_sets):
        run = store.open_run(tmp_path, "theory", CONFIG, CONFIG)
        for name, arrays in curves().items():
            run.save_arrays(name, **arrays)
        for name, stages in data_sets.items():
            for stage, arrays in stages.items():
                run.save_arrays(f"{stage}_{name}", **arrays)
        run.finish({"status": "ok"})
        return run

    return write


def test_figures_of_a_run(finished):
    several = images(np.array([0.5, 1.0]), np.array([0.1, 1.0]), np.array([1, 10]), points=4)
    # Neither l nor c of the config.
    single = images(np.array([2.0]), np.array([0.5]), np.array([1]), points=2)
    files = plots.draw(finished(digits=several, my_own=single))
    kinds = ("images", "visibility", "defence", "penalty_bounds")
    of_data = {f"{kind}_{name}.png" for kind in kinds for name in ("digits", "my_own")}
    assert {file.name for file in files} == CURVES | of_data
    assert all(canvas.caption(file.read_bytes()) for file in files)
    contents = {file.read_bytes() for file in files}
    assert len(contents) == len(files)
    assert all(content.startswith(b"\x89PNG\r\n\x1a\n") for content in contents)


def test_figures_without_images(finished):
    assert {f"{name}.png" for name in krr_theory.of_run(finished())} == CURVES


def test_captions_state_the_code_s_settings():
    c, system = clones, PoisonedFlow()
    data = f"{c.CLEAN} random clean points in {c.DIMENSION} dimensions"
    circle = f"{filters.POINTS} points on a circle, stationary kernel of width {filters.WIDTH:g}"
    dimension = len(system.fisher(system.start))
    captions = (
        f"{data}, Gaussian kernel, ℓ = {c.LENGTHSCALE:g}, c = {c.RIDGE:g}",
        f"Gaussian kernel, ℓ = {capacity.LENGTHSCALE:g}, λ = {capacity.RIDGE:g}",
        f"{circle}, λ = {filters.RIDGE:g}, κ = {filters.KAPPA:g}",
        f"24 clean and {len(system.start) - 24} poisoned points in {dimension} dimensions, "
        "Gaussian kernel, ℓ = 1.5",
        f"16 clean and 8 poisoned points in the plane, Gaussian kernel, ℓ = 1, λ = {visibility.RIDGE:g}",
        f"30 clean points in 3 dimensions, Gaussian kernel, ℓ = 1, c = {visibility.RIDGE:g}",
        f"Gaussian gradients, {len(spectra.BACKGROUND)} background eigenvalues from "
        f"{spectra.BACKGROUND.min():g} to {spectra.BACKGROUND.max():g}",
    )
    shown = (
        krr_theory.CLONES,
        krr_theory.CAPACITY,
        krr_theory.FILTER,
        krr_theory.FLOW,
        theorems.FLIPS,
        theorems.FAR,
        theorems.GRADIENTS,
    )
    assert shown == captions
