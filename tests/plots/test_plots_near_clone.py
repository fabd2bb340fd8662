"""The bridge's pictures are drawn from stored arrays alone, and their lines are the code's."""

import numpy as np
import pytest
import small_sweeps as sweeps

from plots import canvas
from plots import near_clone as picture
from poison_jax import near_clone


def arrays(n=30, seed=0):
    """What `measure` returns, as far as it is drawn; three points that a logarithm does not show."""
    rng = np.random.default_rng(seed)
    names = ("efficacy", "spike", "clean_spike", "softmax_spike", "law", "law_mean")
    a = {name: rng.lognormal(size=n) for name in names}
    for kind in ("distance", "distance_mean", "clean_distance"):
        a |= {kind: rng.lognormal(size=n), f"input_{kind}": rng.lognormal(size=n)}
    a["efficacy"][0] *= -1
    a["spike"][1] = a["softmax_spike"][1] = 0
    a["distance"][2] = a["law"][2] = 0
    a |= {"lengthscale": np.array(2.0), "input_lengthscale": np.array(3.0)}
    for suffix in ("", "_mean"):
        a |= {f"ratio{suffix}": np.array(0.5), f"rank_correlation{suffix}": np.array(0.1)}
    return a


@pytest.fixture
def finished(tmp_path):
    """Writes a finished run with a poison fraction and arrays."""

    def write(fraction, arrays, **penalty):
        keys = {f"penalty__{name}": value for name, value in penalty.items()}
        result = sweeps.record(untriggered=0.1, data__name="digits", poison__fraction=fraction, **keys).result
        return sweeps.run(tmp_path, result, near_clone=arrays)

    return write


def draw(runs, *, rendered=True):
    """The figure of a run, or of several."""
    with canvas.settings():
        figure = picture.of_runs(runs) if isinstance(runs, list) else picture.of_run(runs)["near_clone"]
    assert not rendered or canvas.render(figure).startswith(b"\x89PNG\r\n\x1a\n")
    return figure


def legend(axis):
    (found,) = axis.get_figure(root=False).legends
    return [text.get_text() for text in found.get_texts()]


def slope_of(slope, what):
    numbers = f"{slope.slope:.2f}, 95 % interval {slope.low:.2f} to {slope.high:.2f}"
    return f"slope {numbers}, {slope.count} {what}"


def test_one_run(finished):
    a = arrays()
    figure = draw(finished(0.01, a))
    parts = "digits", "PreResNet-110", "θ = 0.01", "κ = 0", "90 epochs", "+40.0 points (ASR 50.0%", "30 trig"
    for part in (*parts, "ℓ = 2 "):
        assert part in canvas.caption(figure)
    distances, law, efficacy = figure.axes
    assert f"median {np.median(a['distance']) / 2:.2g}" in legend(distances)[0]
    assert slope_of(near_clone.log_slope(a["law"], a["spike"]), "points, ζ the nearest poison") in legend(law)
    assert slope_of(near_clone.log_slope(a["efficacy"], a["spike"]), "points") in legend(efficacy)
    assert "2 not shown: efficacy or spike not positive" in legend(efficacy)
    shown = law.collections[0].get_offsets()
    usable = (a["law"] > 0) & (a["spike"] > 0)
    np.testing.assert_array_equal(shown, np.stack([a["law"], a["spike"]], 1)[usable])


def test_nothing_that_a_logarithm_has(finished):
    """A network that the trigger does nothing to, and one trigger point, upon a poison."""
    dead = {key: np.zeros(1) if value.ndim else value for key, value in arrays().items()}
    dead |= {"ratio": np.array(np.nan), "clean_distance": np.ones(1), "distance_mean": np.ones(1)}
    figure = draw(finished(0.01, dead))
    assert "1 not shown: efficacy or spike not positive" in legend(figure.axes[2])
    assert draw([finished(fraction, dead) for fraction in (0.1, 0.2)])


def test_several_runs(finished):
    """Spikes of four networks go as the square of their efficacy, a fifth has none."""
    runs = []
    for i, fraction in enumerate((0.001, 0.01, 0.1, 0.3, 0.5)):
        a = arrays(seed=i)
        a["efficacy"] = np.full(30, 2.0**i if i < 4 else -1.0)
        a["spike"] = 3 * a["efficacy"] ** 2
        runs.append(finished(fraction, a, kappa=float(i)))
    figure = draw(runs)
    (axis,) = figure.axes
    assert "slope 2.00, 95 % interval 2.00 to 2.00, 4 networks" in legend(axis)
    assert "1 not shown: median efficacy or spike not positive" in legend(axis)
    coloured = [f"|∇f(x₀)|², θ = {theta:g}" for theta in (0.001, 0.01, 0.1, 0.3, 0.5)]
    assert [label for label in legend(axis) if label in coloured] == coloured
    title = canvas.caption(figure)
    assert title.startswith("5 networks")
    assert "ASR above the rate without trigger: +40.0 points" in title
    assert "κ" not in title  # they differ in it


def test_two_runs_have_no_slope(finished):
    figure = draw([finished(theta, arrays(seed=i)) for i, theta in enumerate((0.0, 0.1))], rendered=False)
    assert not any(text.startswith("slope") for text in legend(figure.axes[0]))
    assert "digits" in canvas.caption(figure)


def test_the_colour_is_of_what_varies(finished):
    """The penalty here, since all have one poison fraction."""
    runs = [finished(0.1, arrays(seed=i), kappa=kappa) for i, kappa in enumerate((30.0, 0.0))]
    (axis,) = draw(runs, rendered=False).axes
    assert legend(axis)[2:4] == ["|∇f(x₀)|², κ = 0", "|∇f(x₀)|², κ = 30"]


def test_adversarial_training_is_named(finished):
    assert "ε = 0.25" in draw(finished(0.01, arrays(), epsilon=0.25), rendered=False).get_label()


def test_near_is_the_code_s():
    assert picture.NEAR == near_clone.NEAR
