"""`python -m poison_jax.analyse`: a trained network is looked at again, and nothing is trained."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from toys import restored, small

from poison_jax import analyse, experiments, metrics, train
from poison_jax.errors import Interrupted
from poison_jax.experiments import network
from poison_jax.runs import files
from poison_jax.runs.store import Run


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished run that nobody changes."""
    (done,) = experiments.run(small(analysis__features=0), tmp_path_factory.mktemp("kept"))
    return done


@pytest.fixture
def moved(kept, tmp_path, monkeypatch):
    """A copy of it in another store, under another name; no training step may be taken."""
    monkeypatch.setattr(train, "train_step", None)
    return Run(shutil.copytree(kept.path, tmp_path / "elsewhere" / "my run"))


def look(arguments):
    analyse.main([*map(str, arguments), "--own_code"])


def test_more_eigenpairs_and_another_trigger_of_a_run_that_was_moved(moved, tmp_path, capsys):
    Image.new("L", (3, 2), 255).save(tmp_path / "white.png")
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:5] = True
    np.save(tmp_path / "mask.npy", mask)
    before = moved.result()
    triggers = [f"--trigger={tmp_path / name}" for name in ("white.png", "mask.npy")]
    look([moved.path, "--k=5", "--num_iters=20", *triggers])
    result, spectrum = moved.result(), moved.arrays("spectrum")
    assert spectrum["vectors"].shape == (5, 64)
    np.testing.assert_allclose(result["eigenvalues"], spectrum["values"], rtol=1e-6)
    assert max(result["residuals"]) < max(before["residuals"])
    made, _ = restored(moved)
    others = {"mask.npy": mask, "white.png": made.direction_of(str(tmp_path / "white.png"))}
    assert result["overlaps_with"].keys() == others.keys()
    for name, direction in others.items():
        expected = [metrics.overlap(vector, direction) for vector in spectrum["vectors"]]
        np.testing.assert_allclose(result["overlaps_with"][name], expected, atol=1e-6)
    assert result["wall_seconds"] > 0
    printed = capsys.readouterr().out
    assert "my run" in printed
    assert f"{result['asr']:.4g}" in printed
    assert not moved.damage()

    # The same again makes nothing; without the options the run is as it was.
    files_before = {file: file.stat().st_mtime_ns for file in moved.path.glob("*.npz")}
    look([moved.path, "--k=5", "--num_iters=20", *triggers])
    assert moved.result() == result
    look([moved.path])
    assert moved.result() == before
    assert {file: file.stat().st_mtime_ns for file in moved.path.glob("*.npz")} == files_before


def test_a_damaged_run_is_looked_at_all_the_same(moved):
    before = moved.arrays("spectrum")
    (moved.path / "spectrum.npz").write_bytes(b"damaged")
    look([moved.path])
    for name, array in before.items():
        np.testing.assert_array_equal(moved.arrays("spectrum")[name], array, err_msg=name)


def test_several_runs(moved, tmp_path, capsys):
    other = Run(shutil.copytree(moved.path, tmp_path / "second"))
    look([moved.path, other.path, "--features=32"])
    assert moved.result()["features_examples"] == other.result()["features_examples"] == 32


def test_the_kernel_theory_and_the_fisher_of_a_trained_network(moved):
    look([moved.path, "--near_clone=8", "--fisher=16"])
    result = moved.result()
    assert result["near_clone_median_spike"] > 0
    assert result["near_clone_epochs_slope_count"] == 0  # no epoch was measured
    assert moved.arrays("fisher")["vectors"].shape == (3, 64)


def test_code_of_one_s_own_is_run_only_when_that_is_asked_for(moved, refused):
    assert "toys:Small: give --own_code" in refused(analyse.main, moved.path, "--k=2")
    assert len(moved.result()["eigenvalues"]) == 3


@pytest.mark.parametrize(
    ("stored", "words"),
    [(None, "no checkpoints"), ({"nosuch": 1}, "'nosuch' is not of this version"), ({"seed": "x"}, "'seed'")],
)
def test_what_is_no_run_is_refused(tmp_path, stored, words, refused):
    if stored is not None:
        (tmp_path / "checkpoints").mkdir()
        files.write_json(tmp_path / "config.json", stored)
    assert words in refused(look, tmp_path)


def test_a_network_that_is_not_trained_to_the_end_is_refused(tmp_path, monkeypatch, refused):
    class Asked(network.StopSignals):
        asked = property(lambda self: True, lambda self, value: None)

    with monkeypatch.context() as patch:
        patch.setattr(network, "StopSignals", Asked)
        with pytest.raises(Interrupted):
            experiments.run(small(), tmp_path)
    (path,) = tmp_path.iterdir()
    assert "no whole checkpoint of a network of this shape trained to the end" in refused(look, path)
    assert not Run(path).done


def test_data_that_changed_are_refused(moved, refused):
    files.write_json(moved.path / "inputs.json", {"sha256": "that of other data"})
    assert "have changed since" in refused(look, moved.path, "--k=2")
    assert len(moved.arrays("spectrum")["values"]) == 3


def test_options_and_files_that_are_refused(moved, tmp_path, refused):
    before = (moved.path / "result.json").read_text()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "mask.npy", np.eye(8, dtype=bool))
    np.save(tmp_path / "small.npy", np.eye(5, dtype=bool))
    two = [f"--trigger={tmp_path / folder / 'mask.npy'}" for folder in ("a", "b")]
    assert "have one name" in refused(look, moved.path, *two)
    assert "small.npy' is (5, 5)" in refused(look, moved.path, f"--trigger={tmp_path / 'small.npy'}")
    assert "is not a readable" in refused(look, moved.path, "--trigger=nowhere.npy")
    assert "spectrum.k = 9 exceeds" in refused(look, moved.path, "--k=9")
    assert json.loads((moved.path / "result.json").read_text()) == json.loads(before)
