"""Cost against size: the line through the points, the table's arithmetic, a tiny run of everything."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import ours, scale, timing
from poison_jax import cache, models
from poison_jax.sweeps import flops

ONCE = timing.Rounds(1, 1, 0)
TINY = scale.Sizes(
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
        scale.base.cache_clear()
        yield
    scale.base.cache_clear()


def test_fit_recovers_a_line():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    line = scale.fit(x, 0.5 + 0.25 * x)
    assert line[:4] == pytest.approx((0.5, 0.25, 1.0, 0.0), abs=1e-9)
    assert 0 < line.exponent < 1  # the fixed part weighs on the small ones


@pytest.mark.parametrize("power", [1.0, 1.7])
def test_fit_of_a_power_law(power):
    x = np.array([1.0, 2.0, 4.0, 8.0])
    line = scale.fit(x, 3 * x**power)
    assert line.exponent == pytest.approx(power)
    assert (line.r2 == pytest.approx(1.0)) == (power == 1.0)


def test_fit_by_hand():
    """Points (1, 1), (2, 3), (3, 2): slope 1/2 about (2, 2), squared errors 1/4 + 1 + 1/4 of 2."""
    line = scale.fit([1, 2, 3], [1, 3, 2])
    assert line[:4] == pytest.approx((1.0, 0.5, 0.25, 0.5))


def test_flops_of_the_points_are_those_of_flops_py():
    forward, first = flops.preresnet_forward(14, 10, (32, 32, 3), width=8)
    assert scale.image_flops("penalised step", 14, 8) == 6 * forward - first
    products = scale.PRODUCTS * scale.image_flops("Hessian product", 14, 8)
    assert products == flops.hessian_products(forward, scale.PRODUCTS)


def test_rates_agree_with_flops_and_seconds(tiny, monkeypatch):
    """Every side takes a second, the matrix product a tenth."""
    monkeypatch.setattr(
        scale, "measured", lambda sides, _: {name: [0.1 if name == "matmul" else 1.0] for name in sides}
    )
    rows, matmul = scale.rates(TINY)
    forward, first = flops.preresnet_forward(8, 10, (8, 8, 3), width=2)
    expected = [forward, 3 * forward - first, 6 * forward - first, flops.hessian_products(forward, 3) / 3]
    assert matmul == pytest.approx(2 * 64**3 / 0.1 / 1e9)
    assert [row.mflop * 1e6 for row in rows] == pytest.approx(expected)
    assert [row.images for row in rows] == [8, 8, 8, 24]
    for row in rows:
        assert row.gflops == pytest.approx(row.mflop * row.images / 1e3)
        assert row.fraction == pytest.approx(row.gflops / matmul)


def test_hessian_makes_as_many_products_as_it_says(tiny, monkeypatch):
    found = []
    monkeypatch.setattr(
        scale.spectrum, "input_hessian", lambda *_, **options: found.append(options) or _Pairs
    )
    run = scale.Hessian(models.preresnet(8, 10, width=1), {}, None, None, 4, 7)
    assert run() == 1.0
    assert found[0]["num_iters"] + found[0]["k"] + 1 == 7  # `top_eigenpairs` says what it costs


class _Pairs:
    values = 1.0


def test_step_with_weights_drawn_by_numpy(tiny):
    step = scale.Step(batch=4, depth=8, width=2, devices=2)
    expected = jax.eval_shape(lambda: models.preresnet(8, 10, width=2).init(jax.random.key(0), (8, 8, 3)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), step.state.variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    assert len(step.state.step.sharding.device_set) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step.state.variables))


def test_efficiency_on_a_cpu_is_against_xlas_convolutions(monkeypatch):
    seconds = {(1, "kernels"): 1.0, (1, "xla"): 2.0, (2, "xla"): 2.5, (8, "xla"): 4.0}

    def in_child(devices, convolutions, sizes):
        return {"seconds": [seconds[devices, convolutions]], "cores": 2.0}

    monkeypatch.setattr(scale, "in_child", in_child)
    rows = scale.parallel(TINY)
    assert [row.seconds for row in rows] == [1.0, 2.0, 2.5, 4.0]
    assert [row.efficiency for row in rows] == [None, 1.0, 0.8, 0.5]


def test_efficiency_of_real_devices_counts_them(monkeypatch):
    monkeypatch.setattr(scale.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(scale, "steps_on", lambda n, sizes: {"seconds": [1 / n**0.5], "cores": 1.0})
    rows = scale.parallel(TINY)
    assert [row.devices for row in rows] == [1, 2, 8]
    assert [row.efficiency for row in rows] == pytest.approx([1, 2**-0.5, 8**-0.5])


@pytest.mark.slow
def test_a_whole_tiny_run(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "QUICK", TINY)
    monkeypatch.setattr(cache, "keep_compilations", lambda: None)
    monkeypatch.setattr(scale, "in_child", lambda *_: {"seconds": [1.0], "cores": 2.0})
    numbers, figure = tmp_path / "scale.json", tmp_path / "scale.png"
    scale.main(["--quick", "--json", str(numbers), "--figure", str(figure)])
    written = json.loads(numbers.read_text())
    curves = [(one["variable"], one["cost"]) for one in written["curves"]]
    both = [
        (name, cost) for name in ("batch", "depth", "width") for cost in ("penalised step", "Hessian product")
    ]
    assert curves == [*both, ("images", "Hessian product")]
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
def test_bad_flags(arguments, says, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "folder.png"
    folder.mkdir()
    monkeypatch.setattr(scale.cache, "keep_compilations", lambda: pytest.fail("something was begun"))
    with pytest.raises(SystemExit) as stopped:
        scale.main([argument.format(folder=folder) for argument in arguments])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {says.format(folder=folder)}\n"


def test_child_that_fails_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    Path(tmp_path / "benchmarks/scale.py").write_text("raise SystemExit('no memory left')")
    monkeypatch.setattr(scale.child, "ROOT", tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(scale.child.ChildError, match="2 devices: no memory left"):
        scale.in_child(2, "xla", TINY)
