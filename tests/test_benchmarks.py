"""The comparison with PyTorch: its arithmetic, its network, the shape of its table."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import timing
from benchmarks.gpu import pack, table
from poison_jax import autodiff, losses, models
from poison_jax.sweeps import flops

STEPS = ["eval_forward", "plain_step", "penalised_step", "hessian_top5"]
NAMES = [*STEPS, "compile_cold_s", "compile_warm_s", "peak_memory"]


def test_flops_of_preresnet8_by_hand():
    """Depth 8, width 4, images 8 x 8 x 3, five classes: every convolution written down."""
    full = 2 * 64 * 9 * (3 * 4 + 2 * 4 * 4)  # conv_in and stage 1, at 8 x 8
    half = 2 * 16 * (9 * (4 * 8 + 8 * 8) + 4 * 8)  # stage 2 at 4 x 4, its shortcut 1 x 1
    quarter = 2 * 4 * (9 * (8 * 16 + 16 * 16) + 8 * 16)
    forward, first = flops.preresnet_forward(8, 5, (8, 8, 3), width=4)
    assert (forward, first) == (full + half + quarter + 2 * 16 * 5, 2 * 64 * 9 * 3 * 4)
    assert flops.plain_step(forward, first) == 3 * forward - first


@pytest.mark.parametrize(("depth", "block"), [(8, "basic"), (11, "bottleneck")])
def test_flops_of_the_forward_pass_are_those_that_xla_counts(depth, block):
    """XLA counts the elementwise work too, and leaves out the products with the zeros of the padding."""
    model = models.preresnet(depth, 10, block=block, convolutions="xla")  # it cannot count the kernels'
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), (32, 32, 3)))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    counted = jax.jit(model.apply).lower(variables, images).cost_analysis()["flops"]
    ours, _ = flops.preresnet_forward(depth, 10, (32, 32, 3), block=block)
    assert counted == pytest.approx(ours, rel=0.1)


def test_rounds_are_interleaved_and_ratios_paired():
    calls = []
    sides = {name: lambda name=name: calls.append(name) for name in ("ours", "listing")}
    seconds = timing.interleaved(sides, timing.Rounds(2, 3, 60.0))
    assert calls == ["ours", "listing"] * 3
    assert [len(values) for values in seconds.values()] == [3, 3]
    assert timing.paired_ratio([2.0, 30.0, 5.0], [1.0, 10.0, 1.0]) == 3.0


def test_rounds_stop_when_the_time_is_spent(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    seconds = timing.interleaved({"ours": lambda: None}, timing.Rounds(2, 50, 12.0))
    assert len(seconds["ours"]) == 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("train", [False, True])
def test_pytorch_reference_is_our_network(request, dtype, train):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_reference as reference

    if dtype == "float64":
        request.getfixturevalue("x64")
    tolerance = 1e-10 if dtype == "float64" else 2e-4
    variables, model, images, labels = _toy(dtype)

    def loss(params, x):
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        logits = model.apply_train(both, x)[0][0] if train else model.apply(both, x)[0]
        return losses.cross_entropy(lambda *_: logits)(params, x, labels)

    objective = losses.gradient_penalised(loss, 10.0, reduction="listing")
    value, gradient = jax.jit(jax.value_and_grad(objective))(variables["params"], images)
    theirs = reference.from_flax(variables, 8).train(train)
    arguments = theirs, reference.to_torch(images), torch.tensor(labels).long(), 10.0
    for kind, step in (("listing", reference.step), ("best", reference.best_step)):
        theirs.load_state_dict(reference.from_flax(variables, 8).state_dict())
        out = step(reference.sgd(theirs, 0.0, 0.9, 0.0), getattr(reference, f"{kind}_loss"), *arguments)
        np.testing.assert_allclose(out.item(), value, rtol=tolerance)
        expected = reference.torch_layout(gradient)
        for name, parameter in theirs.named_parameters():
            scale = float(expected[name].abs().max())
            np.testing.assert_allclose(parameter.grad, expected[name], rtol=0, atol=tolerance * scale)


def _toy(dtype):
    model = models.preresnet(8, 5, width=4, dtype=dtype)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.1 * rng.uniform(size=leaf.shape), dtype),
        model.init(jax.random.key(0), (8, 8, 3)),
    )
    return variables, model, rng.normal(size=(6, 8, 8, 3)).astype(dtype), rng.integers(0, 5, 6, np.int32)


def test_pytorch_operators_are_the_input_hessian(x64):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_reference as reference

    variables, model, images, labels = _toy("float64")
    # Logits of order one: of saturated ones the Hessian is 1e-7, near where the reference stops, 1e-8.
    fc = variables["params"]["fc"]
    fc["kernel"] = fc["kernel"] / 30

    def mean_loss(delta):
        return losses.cross_entropy(model.apply)(variables, images + delta, labels).mean()

    product = jax.jit(lambda v: autodiff.hvp(mean_loss, jnp.zeros((8, 8, 3)), v))
    hessian = np.stack([np.ravel(product(unit.reshape(8, 8, 3))) for unit in np.eye(192)])
    x, y = reference.to_torch(images), torch.tensor(labels).long()
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    v = np.random.default_rng(1).normal(size=(8, 8, 3))
    expected = (hessian @ v.ravel()).reshape(8, 8, 3).transpose(2, 0, 1).ravel()
    vector = reference.to_torch(v[None]).ravel()
    operators = [reference.ListingHVP(reference.from_flax(variables, 8), batches)]
    for kept in range(3):
        operators.append(reference.BestHVP(reference.from_flax(variables, 8), batches, kept=kept))
    for operator in operators:
        for _ in range(2):  # a kept graph serves more than one vector
            np.testing.assert_allclose(operator(vector), expected, rtol=1e-9, atol=1e-12)
    values = reference.lanczos(operators[-1], vector, 60)
    np.testing.assert_allclose(values[:3], np.linalg.eigvalsh(hessian)[::-1][:3], rtol=1e-6)


def test_table_and_json(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from benchmarks import measure

    def results(quick):
        assert quick
        for name in NAMES[:4]:
            yield measure.Result(measure.Entry(name, "images/s", 120.0, 60.0, 80.0, 2.0, 1.5, 0.25), ["3 x"])
        for name in NAMES[4:]:
            yield measure.Result(measure.Entry(name, "s", 9.0), ["once"])

    monkeypatch.setattr(measure, "results", results)
    command.main(["--quick", "--json", str(tmp_path / "table.json")])
    rows = json.loads((tmp_path / "table.json").read_text())
    keys = ["name", "unit", "ours", "listing", "best", "ratio_listing", "ratio_best", "fraction_of_peak"]
    assert [list(row) for row in rows] == [keys] * 7
    assert [row["name"] for row in rows] == NAMES
    assert rows[0]["ratio_listing"] == 2.0
    assert rows[4]["best"] is None
    assert "25.0%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fast"], "unrecognized arguments: --fast"),
        (["--json"], "argument --json: expected one argument"),
        (["--json", "nowhere/table.json"], "cannot write nowhere/table.json"),
    ],
)
def test_bad_flags(arguments, says, refused):
    assert refused(command.main, *arguments) == f"error: {says}"


def test_without_pytorch_one_line(monkeypatch, refused):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert refused(command.main) == "error: the comparison needs PyTorch: pip install -e '.[bench]'"


def test_without_a_gpu_one_line(monkeypatch, refused):
    pytest.importorskip("torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert refused(command.main, "--device", "gpu") == "error: --device gpu: there is no NVIDIA GPU here"


def planned(monkeypatch, *commands):
    """A GPU's table whose sections are these programs, given the file of its rows."""
    sections = iter(commands)
    plan = [table.Planned(name, 60, {"MINE": "1"}) for name in ("machine", "agreement", "ours")]
    monkeypatch.setattr(table, "PLAN", plan[: len(commands)])
    run = table.subprocess.run

    def instead(command, **options):
        return run([sys.executable, "-c", next(sections), command[-1]], **options)

    monkeypatch.setattr(table.subprocess, "run", instead)


ROWS = [
    {"section": "machine", "what": "tf32", "tflops": 400.0},
    {"section": "machine", "what": "copy", "tb_s": 3.0},
    {
        "section": "ours",
        "what": "plain",
        "precision": "tf32",
        "depth": 20,
        "ms": 1.04,
        "tflops": 40.0,
        "flags": "",
    },
    {"section": "pytorch", "what": "plain", "how": "graph", "channels_last": True, "ms": 2.0, "flags": ""},
]


def test_the_table_of_a_gpu(tmp_path, monkeypatch, capsys):
    """Images a second, and fractions of the matrix product's rate and of the time that moving bytes takes."""
    monkeypatch.setenv("COLUMNS", "120")
    write = f"import json, sys; open(sys.argv[1], 'a').writelines(json.dumps(r) + chr(10) for r in {ROWS})"
    planned(monkeypatch, write)
    rows = table.measure(tmp_path / "rows", 60)
    assert rows[:4] == ROWS
    assert (rows[4]["section"], rows[4]["changes"], rows[4]["error"]) == ("machine", {"MINE": "1"}, "")
    table.show(rows)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any("ours, tf32, no graphs │ 1.04 │ 123077 │ 10.0% │ 50%" in line for line in lines)
    assert any("PyTorch, graph, channels last │ 2 │ 64000" in line for line in lines)


@pytest.mark.parametrize(
    ("agreement", "error"),
    [
        ("import sys; sys.exit('the gradient is off')", "the gradient is off"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
    ],
)
def test_where_the_sides_disagree_or_cannot_be_compared_nothing_is_timed(
    tmp_path, monkeypatch, agreement, error
):
    planned(monkeypatch, "", agreement, "raise SystemExit")
    rows = table.measure(tmp_path / "rows", 60)
    assert [(row["section"], row["error"]) for row in rows] == [("machine", ""), ("agreement", error)]


def test_mosaics_hold_the_images():
    images = np.random.default_rng(0).integers(0, 256, (1000, 3, 2, 3), np.uint8)
    picture = pack.mosaic(images)
    assert picture.shape == (60, 100, 3)
    np.testing.assert_array_equal(picture[3:6, 2:4], images[51])
    np.testing.assert_array_equal(pack.tiles(picture), images)
