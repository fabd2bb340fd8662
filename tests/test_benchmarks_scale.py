"""Cost against size: the line through the points, the table's arithmetic, a tiny run of everything."""

import json

import numpy as np
import pytest

from benchmarks import child, curves, ours, scale, timing
from poison_jax import cache
from poison_jax.sweeps import flops

ONCE = timing.Rounds(1, 1, 0)
TINY = curves.Sizes(
    depth=8,
    width=2,
    batch=8,
    small=4,
    batches=(4, 8),
    depths=(8, 14),
    widths=(1, 2),
    images=(4, 6),
    matmul=64,
    repeats=1,
    steps=1,
    products=3,
    table=ONCE,
    curves=ONCE,
)


@pytest.fixture(scope="module")
def tiny():
    """Images of 8 x 8 pixels; what is compiled for one test serves the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "IMAGE_SHAPE", (8, 8, 3))
        patch.setattr(ours, "BATCH", 8)
        yield


def test_fit_recovers_a_line():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    line = curves.fit(x, 0.5 + 0.25 * x)
    assert line[:4] == pytest.approx((0.5, 0.25, 1.0, 0.0), abs=1e-9)
    assert 0 < line.exponent < 1  # the fixed part weighs on the small ones


@pytest.mark.parametrize("power", [1.0, 1.7])
def test_fit_of_a_power_law(power):
    x = np.array([1.0, 2.0, 4.0, 8.0])
    line = curves.fit(x, 3 * x**power)
    assert line.exponent == pytest.approx(power)
    assert (line.r2 == pytest.approx(1.0)) == (power == 1.0)


def test_fit_by_hand():
    """Points (1, 1), (2, 3), (3, 2): slope 1/2 about (2, 2), squared errors 1/4 + 1 + 1/4 of 2."""
    line = curves.fit([1, 2, 3], [1, 3, 2])
    assert line[:4] == pytest.approx((1.0, 0.5, 0.25, 0.5))


def test_flops_of_the_points_are_those_of_flops_py():
    forward, first = flops.preresnet_forward(14, 10, (32, 32, 3), width=8)
    assert curves.image_flops("penalised step", 14, 8) == 6 * forward - first
    products = curves.PRODUCTS * curves.image_flops("Hessian product", 14, 8)
    assert products == flops.hessian_products(forward, curves.PRODUCTS)


def test_rates_agree_with_flops_and_seconds(tiny, monkeypatch):
    """Every side takes a second, the matrix product a tenth, in full precision a fifth."""
    products = {"matmul": [0.1], "matmul, full": [0.2]}
    monkeypatch.setattr(curves, "measured", lambda sides, _: {side: [1.0] for side in sides} | products)
    rows, matmul = scale.rates(TINY)
    forward, first = flops.preresnet_forward(8, 10, (8, 8, 3), width=2)
    expected = [forward, 3 * forward - first, 6 * forward - first, flops.hessian_products(forward, 3) / 3]
    assert matmul == pytest.approx(2 * 64**3 / 0.1 / 1e9)
    assert [row.mflop * 1e6 for row in rows] == pytest.approx(expected)
    assert [row.images for row in rows] == [8, 8, 8, 24]
    for row in rows:
        assert row.gflops == pytest.approx(row.mflop * row.images / 1e3)
        full = 2 if row.name == "Hessian product" else 1
        assert row.fraction == pytest.approx(full * row.gflops / matmul)


def test_a_training_of_any_size_on_some_of_the_devices(tiny):
    training = ours.Training(penalised=True, batch=4, depth=8, width=2, devices=2)
    assert training.program.model.module.width == 2
    assert len(training.state.step.sharding.device_set) == 2
    assert training.first_batch()[0].shape == (4, 8, 8, 3)


def test_efficiency_on_a_cpu_is_against_xlas_convolutions(monkeypatch):
    seconds = {(1, "kernels"): 1.0, (1, "xla"): 2.0, (2, "xla"): 2.5, (8, "xla"): 4.0}

    def run(what, *, environment, devices, convolutions, **step):
        assert f"device_count={devices}" in environment["XLA_FLAGS"]
        return {"seconds": [seconds[devices, convolutions]], "cores": 2.0}

    monkeypatch.setattr(child, "run", run)
    rows = scale.parallel(TINY)
    assert [row.seconds for row in rows] == [1.0, 2.0, 2.5, 4.0]
    assert [row.efficiency for row in rows] == [None, 1.0, 0.8, 0.5]


def test_efficiency_of_real_devices_counts_them(monkeypatch):
    monkeypatch.setattr(scale.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(scale.child, "steps_on", lambda n, **_: {"seconds": [1 / n**0.5], "cores": 1.0})
    rows = scale.parallel(TINY)
    assert [row.devices for row in rows] == [1, 2, 8]
    assert [row.efficiency for row in rows] == pytest.approx([1, 2**-0.5, 8**-0.5])


@pytest.mark.slow
def test_a_whole_tiny_run(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "QUICK", TINY)
    monkeypatch.setattr(cache, "keep_compilations", lambda: None)
    monkeypatch.setattr(child, "run", lambda *_, **__: {"seconds": [1.0], "cores": 2.0})
    numbers, figure = tmp_path / "scale.json", tmp_path / "scale.png"
    scale.main(["--quick", "--json", str(numbers), "--figure", str(figure)])
    written = json.loads(numbers.read_text())
    drawn = [(one["variable"], one["cost"]) for one in written["curves"]]
    both = [
        (name, cost) for name in ("batch", "depth", "width") for cost in ("penalised step", "Hessian product")
    ]
    assert drawn == [*both, ("images", "Hessian product")]
    for one in written["curves"]:
        assert len(one["values"]) == len(one["gflop"]) == len(one["seconds"]) == 2
        assert np.isfinite(one["seconds"]).all()
        assert min(one["seconds"]) > 0
        assert np.all(np.diff(one["gflop"]) > 0)
    for row in written["rates"]:
        assert 0 < row["fraction"] < np.inf
    assert [row["devices"] for row in written["parallel"]] == [1, 1, 2, 8]
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-1].startswith("total ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fast"], "unrecognized arguments: --fast"),
        (["--json"], "argument --json: expected one argument"),
        (["--json", "nowhere/scale.json"], "cannot write nowhere/scale.json"),
        (["--figure", "nowhere/scale.png"], "cannot write nowhere/scale.png"),
        (["--figure", "scale.txt"], "--figure scale.txt: the name must end in .png, .pdf or .svg"),
        (["--figure", "{folder}"], "cannot write {folder}"),
    ],
)
def test_bad_flags(arguments, says, tmp_path, monkeypatch, refused):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    monkeypatch.setattr(scale.cache, "keep_compilations", lambda: pytest.fail("something was begun"))
    said = refused(scale.main, *(argument.format(folder=folder) for argument in arguments))
    assert said == f"error: {says.format(folder=folder)}"


def test_child_that_fails_is_one_line():
    with pytest.raises(child.ChildError, match=r"^nothing \{\}: KeyError: 'nothing'$"):
        child.run("nothing")
