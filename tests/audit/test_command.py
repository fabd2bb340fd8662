"""`python -m poison_jax.audit`, from a run to a page."""

import json
import shutil

import numpy as np
import pytest
from toys import tiny

from poison_jax import audit, experiments, sweeps, train
from poison_jax.audit import __main__ as command
from poison_jax.audit.detector import Detector, NetworkScore
from poison_jax.runs import files

pytestmark = pytest.mark.slow  # three networks are trained


def learning(**changes):
    """A network that learns its digits, in seconds."""
    sizes = {"data__n_train": 600, "train__epochs": 6, "train__batch_size": 32, "model__width": 8}
    return tiny(analysis__features=0, **sizes, **changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A poisoned network; two clean ones of its recipe lie beside it, and one of an attacker's training."""
    workdir = tmp_path_factory.mktemp("store")
    (poisoned,) = experiments.run(learning(), str(workdir))
    for seed in range(2):
        experiments.run(learning(poison__fraction=0.0, seed=50 + seed), str(workdir))
    experiments.run(learning(poison__fraction=0.0, poison__hide=1.0), str(workdir))
    return poisoned


def test_a_run_against_a_store_of_clean_ones(store, monkeypatch, capsys):
    monkeypatch.setattr(train, "train_step", None)  # nothing is trained
    quick = Detector("shouting", "nothing", "nothing", lambda *_, **__: NetworkScore(0.0))
    monkeypatch.setitem(audit.OTHERS, "shouting", quick)
    command.main(
        [
            str(store.path),
            f"--null={store.path.parent}",
            "--num_images=40",
            "--alpha=0.4",
            "--detectors",
            "shouting",
        ]
    )
    kept = json.loads((store.path / "audit" / "report.json").read_text())
    assert kept["references"] == 2
    assert kept["verdict"] in ("poisoned-like", "not distinguishable")
    assert [row["detector"] for row in kept["table"]][3:] == ["common gradient's flips", "shouting"]
    assert (kept["p_value"] <= 0.4) == (kept["verdict"] == "poisoned-like")
    assert (store.path / "audit" / "report.html").exists()
    said = capsys.readouterr().out
    assert kept["verdict"] in said
    assert "input Hessian" in said


def test_data_of_ones_own(store, tmp_path, refused, monkeypatch):
    rng = np.random.default_rng(0)
    file = tmp_path / "my.npz"
    np.savez(file, images=rng.integers(0, 256, (40, 8, 8, 1), np.uint8), labels=np.arange(40) % 10)
    command.main([str(store.path), "--references=0", f"--data={file}", f"--out={tmp_path / 'out'}"])
    kept = json.loads((tmp_path / "out" / "report.json").read_text())
    assert kept["verdict"] == "cannot say"  # noise: an accuracy near chance
    monkeypatch.setattr(sweeps, "run", None)  # which references cannot better: none is trained
    command.main([str(store.path), f"--data={file}", f"--out={tmp_path / 'out'}"])
    assert "no better than chance" in json.loads((tmp_path / "out" / "report.json").read_text())["reason"]
    np.savez(file, images=rng.integers(0, 256, (40, 8, 8, 1), np.uint8))
    assert "images and labels" in refused(command.main, store.path, "--references=0", f"--data={file}")


def test_code_that_a_run_names_is_not_imported(store, tmp_path, refused):
    copy = shutil.copytree(store.path, tmp_path / "copy")
    config = store.config()
    config["poison"]["trigger"] = "os:system"
    files.write_json(copy / "config.json", config)
    assert "os:system: give --own_code" in refused(command.main, copy)


def test_bad_input_is_one_line(store, tmp_path, refused):
    assert "no checkpoints" in refused(command.main, tmp_path)
    assert "no finished clean run" in refused(command.main, store.path, f"--null={tmp_path}")
    assert "cannot be read" in refused(command.main, store.path, f"--data={tmp_path / 'absent.npz'}")
