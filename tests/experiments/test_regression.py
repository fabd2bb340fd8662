"""The linear experiment on a few digits, in process, and what it rests on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plots
from poison_jax import config as config_lib
from poison_jax import experiments, linear, poison
from poison_jax.errors import UserError
from poison_jax.experiments import regression
from poison_jax.experiments.regression_setup import Problem
from poison_jax.linear import sgd as linear_sgd
from poison_jax.runs import store


def tiny(**changes):
    """A run of a second; `group__key=value` changes it."""
    config = config_lib.default()
    settings = {
        "experiment": "mnist_linear",
        "name": "tiny",
        "data.name": "digits",
        "data.n_train": 300,
        "data.n_test": 100,
        "poison.trigger": "square",
        "poison.mode": "deterministic",
        "poison.margin": 0,
        "train.epochs": 3,
        "train.batch_size": 32,
        "train.learning_rate": 0.02,
        "train.momentum": 0.0,
        "train.weight_decay": 0.0,
        "train.decay_times": 0,
        "linear.fractions": (0.1, 0.3),
        "linear.picture": 0.3,
        "linear.seeds": (0, 1),
        "linear.ridges": (1.0,),
    }
    config.update_from_flattened_dict(settings)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    (run,) = experiments.run(tiny(), tmp_path_factory.mktemp("linear"))
    return run


def poisoned_design(seed, theta):
    """Features with a bias and one-hot targets, made by hand."""
    train = Problem(tiny()).train_set
    chosen = poison.select_deterministic(train.ids, train.labels, theta, 0, seed=42 + 10**5 * seed)
    pixels = (train.images / 255.0).reshape(300, -1)
    pixels[np.ix_(chosen, [6 * 8 + 6, 6 * 8 + 7, 7 * 8 + 6, 7 * 8 + 7])] = 1
    labels = np.where(chosen, 0, train.labels)
    return np.column_stack([pixels, np.ones(300)]), np.eye(10)[labels]


# --- a whole run ----------------------------------------------------------------------------------


def test_exact_fits_are_those_of_numpy_and_of_lemma_f_1(done):
    """The lemma's steps, with trigger pixels that are on in clean digits too, against the direct fits."""
    for seed in (0, 1):
        exact = done.arrays(f"exact-{seed}")
        full = exact["full"]
        assert full.shape == (2, 3, 2, 65, 10)
        assert np.linalg.norm(exact["step"] - full[0]) / np.linalg.norm(exact["step"]) < 1e-8
        for t, theta in enumerate((0.0, 0.1, 0.3)):
            X, Y = poisoned_design(seed, theta)
            for bias, design in enumerate((X[:, :-1], X)):
                direct = np.linalg.lstsq(design, Y, rcond=None)[0]
                np.testing.assert_allclose(full[0, t, bias, : 64 + bias], direct, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(full[:, t, 0, -1], 0)
            ridge = np.linalg.solve(X.T @ X + np.eye(65), X.T @ Y)
            np.testing.assert_allclose(full[1, t, 1], ridge, rtol=1e-6, atol=1e-8)
    assert done.result()["largest_step_full_difference"] < 1e-8


def test_result(done):
    result, measured = done.result(), done.arrays("measures")
    methods = ["exact", "ridge 1", "SGD, 1 epoch", "SGD, 2 epochs", "SGD, 3 epochs"]
    assert measured["methods"].tolist() == list(result["methods"]) == methods
    assert measured["asr"].shape == (2, 5, 3, 2)  # seeds, methods, thetas, without and with a bias
    assert measured["eigenvalue"].shape == (2, 5, 3, 2, 2)  # targets one-hot, +-1
    for name in "clean_accuracy", "asr", "asr_incl_target", "robust_accuracy", "no_trigger_target_rate":
        mean, deviation = result["methods"]["exact"][name]
        np.testing.assert_allclose(mean, measured[name][:, 0, 2, 1].mean())
        np.testing.assert_allclose(deviation, measured[name][:, 0, 2, 1].std())
    assert result["methods"]["exact"]["clean_accuracy"][0] > 0.7
    assert result["methods"]["exact"]["asr"][0] > 5 * measured["asr"][:, 0, 0, 1].mean()  # of theta = 0
    assert result["seeds"] == [0, 1]
    assert result["config"] == done.config()
    assert {"versions", "device", "wall_seconds"} <= result.keys()


def test_figures_are_drawn_from_the_run(done):
    files = plots.draw(done)
    assert [file.name for file in files] == ["fig04.png", "fig05.png", "rise.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_tables_are_printed_and_what_is_done_is_not_done_again(done, monkeypatch, capsys):
    monkeypatch.setattr(regression, "_exact", None)
    (again,) = experiments.run(tiny(data__dir="/elsewhere", poison__fraction=0.5, seed=3), done.path.parent)
    assert again.path == done.path
    printed = capsys.readouterr().out
    for text in ("already done", "digits, 300 training images", "SGD, 3 epochs", "Lemma F.1"):
        assert text in printed


def test_a_run_killed_between_stages_ends_with_the_same_arrays(done, tmp_path, monkeypatch):
    keep = store.Run.stage
    for stage in ("exact-1", "sgd-1", "measures"):

        def killed(self, name, make, stage=stage):
            if name == stage:
                raise KeyboardInterrupt
            return keep(self, name, make)

        with monkeypatch.context() as patch:
            patch.setattr(store.Run, "stage", killed)
            with pytest.raises(KeyboardInterrupt):
                experiments.run(tiny(), tmp_path)
    (resumed,) = experiments.run(tiny(), tmp_path)
    for name in ("exact-0", "exact-1", "sgd-0", "sgd-1", "measures"):
        ours, theirs = resumed.arrays(name), done.arrays(name)
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"seconds"}:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=f"{name} {key}")


# --- what it rests on -----------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_fit_to_plus_minus_targets_follows_from_one_hot(ridge):
    X, Y = poisoned_design(0, 0.3)
    one_hot = linear.least_squares(X, Y, ridge=ridge)
    derived = regression.plus_minus(one_hot)
    np.testing.assert_allclose(derived, linear.least_squares(X, 2 * Y - 1, ridge=ridge), atol=1e-9)
    np.testing.assert_array_equal((X @ one_hot).argmax(1), (X @ derived).argmax(1))


def sgd_problem():
    """Three models on well-conditioned inputs: no poison, poison, poison without the last feature."""
    rng = np.random.default_rng(0)
    count = 60
    rest, trigger = rng.standard_normal((count, 4)), np.zeros((count, 1))
    labels, chosen = rng.integers(0, 3, count), rng.random(count) < 0.3
    used = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]])
    poisoned = np.array([np.zeros_like(chosen), chosen, chosen])
    rest, trigger, used = (array.astype(np.float32) for array in (rest, trigger, used))
    poison = poisoned, used, np.float32(1), np.int32(0)
    data = jax.device_put(linear_sgd.Regression(rest, trigger, labels.astype(np.int32), *poison))
    return data, linear_sgd.Weights(jnp.zeros((3, 4, 3)), jnp.zeros((3, 1, 3)))


def test_sgd_of_full_batches_converges_to_the_exact_fit():
    data, weights = sgd_problem()
    order = np.tile(np.arange(60), (1000, 1))
    weights = linear_sgd.epoch(weights, data, order, np.float32(0.2))
    for m in range(3):
        X = np.column_stack([data.rest * data.used[m], data.poisoned[m]])
        Y = np.eye(3)[np.where(data.poisoned[m], 0, data.labels)]
        found = np.concatenate([weights.rest[m], weights.trigger[m]])
        np.testing.assert_allclose(found, np.linalg.lstsq(X, Y, rcond=None)[0], atol=2e-6)


def test_one_step_of_sgd_by_hand():
    """Half the squared error, summed over classes, mean over the batch."""
    data, weights = sgd_problem()
    rows = np.array([[3, 5, 8]])
    weights = linear_sgd.epoch(weights, data, rows, np.float32(0.1))
    Y = np.eye(3)[np.where(data.poisoned[1][rows[0]], 0, data.labels[rows[0]])]
    np.testing.assert_allclose(weights.rest[1], 0.1 * data.rest[rows[0]].T @ Y / 3, atol=1e-6)


def test_one_compilation_serves_the_sweep(tmp_path):
    before = linear_sgd.epoch._cache_size()
    changes = {"data__n_train": 200, "train__epochs": 2}  # shapes of its own
    experiments.run(tiny(**changes), tmp_path)
    experiments.run(
        tiny(**changes, linear__fractions=(0.2, 0.3), linear__seeds=(5,), poison__target=4), tmp_path
    )
    assert linear_sgd.epoch._cache_size() == before + 1


def test_poison_is_nested_in_theta_and_differs_between_seeds():
    problem = Problem(tiny())
    train = problem.train_set
    first, second = problem.poisoned(0), problem.poisoned(1)
    assert not first[0].any()
    assert (first[1] <= first[2]).all()
    np.testing.assert_array_equal(
        first[1], poison.select_deterministic(train.ids, train.labels, 0.1, 0)
    )  # Listing 3's
    assert (first[2] != second[2]).any()
    assert (first[2][1:] != second[2][:-1]).any()  # and is not the same draw, moved by one


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"linear__picture": 0.2}, r"^linear\.picture = 0\.2 is not one of linear\.fractions"),
        ({"poison__target": 10}, r"^poison\.target = 10: digits has classes 0 to 9"),
        ({"poison__margin": 7}, r"margin 7, size 2: outside the 8x8 image"),
        ({"poison__trigger": "none", "poison__fraction": 0.0}, r"^poison\.trigger = none"),
        ({"poison__mode": "stochastic"}, r"^poison\.mode = stochastic: .* set it to deterministic"),
        ({"train__momentum": 0.9}, r"^train\.momentum = 0\.9: .* set it to 0"),
        ({"data__augment": "crop_flip"}, r"^data\.augment = crop_flip: .* set it to none"),
        ({"train__batch_size": 301}, r"^train\.batch_size = 301 exceeds the 300 training images"),
        ({"linear__ridges": (0.0,)}, r"^linear\.ridges"),
        ({"linear__seeds": (0, 0)}, r"^linear\.seeds"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_written(changes, pattern, tmp_path):
    with pytest.raises(UserError, match=pattern) as error:
        experiments.run(tiny(**changes), tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_sgd_that_diverges_says_so(tmp_path):
    with pytest.raises(UserError, match=r"diverged in epoch \d.*train\.learning_rate = 1e\+06"):
        experiments.run(tiny(train__learning_rate=1e6, train__epochs=5), tmp_path)


def test_thetas_that_poison_nobody_are_said():
    assert Problem(tiny()).remarks() == []
    config = tiny(linear__fractions=(1e-6, 2e-6, 0.3), linear__seeds=(0,))
    (line,) = Problem(config).remarks()
    assert line.startswith("linear.fractions = 1e-06, 2e-06 poison none of 300 images with seed 0")
