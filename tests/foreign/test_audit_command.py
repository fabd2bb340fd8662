"""`python -m poison_jax.audit --model`: a stranger's file, audited by one command; bad input is one line."""

import json

import numpy as np
import pytest
import torch_format as tf

from poison_jax import data
from poison_jax.audit import __main__ as command

LENET = "conv a 8 3 pad=1; relu; maxpool 2; flatten; linear b classes"


def weights(num_classes=10, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        "a.weight": (8, 1, 3, 3),
        "a.bias": (8,),
        "b.weight": (num_classes, 128),
        "b.bias": (num_classes,),
    }
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def options(tmp_path, arrays, **changes):
    (tmp_path / "w.pt").write_bytes(tf.zipped(tf.pickled(tf.state_dict(arrays)), arrays))
    (tmp_path / "net.txt").write_text(LENET.replace("; ", "\n"))
    given = {"model": tmp_path / "w.pt", "architecture": tmp_path / "net.txt", "data": "digits"} | changes
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": None}, "name a run's folder"),
        ({"architecture": None}, "--model takes --architecture"),
        ({"architecture": "lenet6"}, "did you mean lenet5"),
        ({"data": "nothing"}, "unknown data set"),
        ({"normalise": "0.5"}, "write MEAN/STD"),
        ({"normalise": "0.5/0"}, "STD above 0"),
        ({"normalise": ".1,.2/1"}, "one number or 1 with commas"),
        ({"recipe": "train.epoch=3"}, "write KEY=VALUE"),
        ({"recipe": "train.epochs=-3"}, "train.epochs = -3"),
        ({"recipe": "train.epochs=many"}, "--recipe train.epochs=many"),
        ({"references": -1}, "references: train at least one"),
        ({"references": 18}, "--alpha 0.05 takes 19 references"),
    ],
)
def test_bad_input_is_one_line_before_any_compute(tmp_path, refused, monkeypatch, changes, said):
    monkeypatch.setattr("poison_jax.sweeps.run", None)
    assert said in refused(command.main, *options(tmp_path, weights(), **changes))


def test_references_are_not_trained_on_a_file_that_says_that_it_is_poisoned(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("poison_jax.sweeps.run", None)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    file = tmp_path / "mine.npz"
    np.savez(file, images=images, labels=np.arange(40) % 10, poisoned=np.arange(40) < 3)
    with pytest.raises(SystemExit):
        command.main(options(tmp_path, weights(), data=file))
    assert "3 of its images are poisoned" in capsys.readouterr().err


def test_another_number_of_classes(tmp_path, refused):
    said = refused(command.main, *options(tmp_path, weights(7)))
    assert "tells 7 classes apart, digits has 10" in said


def test_backdoorbench_s_normalisation_by_channels_and_classes():
    assert command._normalisation("backdoorbench", 3, 43) == (0.0, 1.0)
    assert command._normalisation("backdoorbench", 1, 10) == (0.5, 0.5)
    mean, _ = command._normalisation("backdoorbench", 3, 10)
    assert mean == (0.4914, 0.4822, 0.4465)
    with pytest.raises(ValueError, match="not known"):
        command._normalisation("backdoorbench", 3, 200)


@pytest.mark.slow
def test_from_a_file_to_a_page(tmp_path, capsys, monkeypatch):
    """The suspect is a ridge regression on pooled pixels, through filters that copy the image."""
    monkeypatch.chdir(tmp_path)
    digits, copies, arrays = data.load("digits", "train"), np.linspace(0.2, 1, 8), weights()
    pooled = (digits.images[..., 0] / 255).reshape(-1, 4, 2, 4, 2).max((2, 4)).reshape(-1, 16)
    features = np.concatenate([copy * pooled for copy in copies], 1)  # channels first
    wanted = 10 * np.eye(10)[digits.labels] - 1
    arrays = {name: np.zeros_like(array) for name, array in arrays.items()}
    arrays["a.weight"][:, 0, 1, 1] = copies
    arrays["b.weight"][:] = np.linalg.solve(features.T @ features + np.eye(128), features.T @ wanted).T
    changes = {"references": 2, "out": "report", "num_images": 60, "alpha": 0.4, "normalise": "none"}
    recipe = ["train.epochs=3", "train.learning_rate=0.05", "data.n_train=600", "train.batch_size=32"]
    command.main([*options(tmp_path, arrays, **changes), "--recipe", *recipe])
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["references"] == 2
    assert found["verdict"] in ("poisoned-like", "not distinguishable")
    assert "p holds for networks that were trained alike" in found["reason"]
    assert "3 epochs of 600 images" in capsys.readouterr().out

    # A network that knows nothing is not worth a reference.
    monkeypatch.setattr("poison_jax.sweeps.run", None)
    command.main([*options(tmp_path, weights(), **changes), "--recipe", *recipe])
    assert "no better than chance" in capsys.readouterr().out
