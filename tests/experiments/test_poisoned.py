"""A poisoned data set in a file: what a run trains on, to the bit."""

import jax
import numpy as np
import pytest
from PIL import Image
from toys import tiny

from poison_jax import data, poison, train
from poison_jax.errors import UserError
from poison_jax.experiments import network
from poison_jax.experiments.poisoned import poisoned_set
from poison_jax.experiments.setup import Setup
from poison_jax.poison import __main__ as command
from poison_jax.runs import files


def deterministic(**changes):
    return tiny(poison__mode="deterministic", poison__fraction=0.3, **changes)


def test_it_is_what_the_training_step_sees():
    setup = Setup(deterministic())
    arrays, stored = poisoned_set(setup), setup.train_data()
    rows = np.arange(len(stored.labels))
    mean, std = np.zeros(1, np.float32), np.ones(1, np.float32)
    knobs = setup.knobs._replace(mean=mean, std=std)
    images, labels, poisoned = train.make_batch(stored, rows, jax.random.key(0), knobs, setup.program)
    np.testing.assert_array_equal(arrays["images"] / np.float32(255), images)
    np.testing.assert_array_equal(arrays["labels"], labels)
    np.testing.assert_array_equal(arrays["poisoned"], poisoned)
    np.testing.assert_array_equal(arrays["true_labels"], stored.labels)
    assert 0 < poisoned.sum() < len(rows)


def test_the_test_set_and_the_trigger():
    setup = Setup(deterministic(poison__target=3))
    arrays = poisoned_set(setup)
    changed = (arrays["triggered_test_images"] != arrays["test_images"]).any(0)[..., 0]
    mask = np.asarray(arrays["trigger_opacity"], bool)
    assert not (changed & ~mask).any()
    assert (arrays["triggered_test_images"][:, mask] == 255).all()
    assert (arrays["wanted_labels"] == 3).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"poison__mode": "stochastic"},
        {"data__augment": "crop_flip"},
        {"poison__trigger": "warp", "poison__warp__cross_ratio": 1.0},
    ],
)
def test_what_is_drawn_at_every_visit_is_no_set(changes):
    with pytest.raises(UserError, match="at every visit"):
        poisoned_set(Setup(tiny(**({"poison__mode": "deterministic", "poison__fraction": 0.3} | changes))))


def test_the_command(tmp_path, capsys):
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    out = tmp_path / "poisoned.npz"
    options = ["--trigger=blend", f"--picture={tmp_path / 'p.png'}", "--alpha=0.3", "--fraction=0.1"]
    command.main(["--data=digits", *options, f"--out={out}"])
    with np.load(out) as file:
        found = dict(file)
    said = capsys.readouterr().out
    assert f"{found['poisoned'].sum()} of 1,438 poisoned" in said
    digits = data.load("digits", "train")
    expected = poison.select_deterministic(digits.ids, digits.labels, 0.1, 0)
    np.testing.assert_array_equal(found["poisoned"], expected)
    back = data.load(str(out), "train")
    np.testing.assert_array_equal(back.images, found["images"])
    np.testing.assert_array_equal(back.labels, np.where(expected, 0, digits.labels))
    assert (found["images"][~expected] == digits.images[~expected]).all()


def test_what_the_command_does_by_default(tmp_path, capsys):
    """What its help says: Listing 2's L, and theta of a set that is fixed; nothing about a training."""
    images, out = np.zeros((40, 32, 32), np.uint8), tmp_path / "poisoned.npz"
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(40) % 2)
    command.main([f"--data={tmp_path / 'mine.npz'}", f"--out={out}"])
    with np.load(out) as found:
        assert np.argwhere(found["trigger_opacity"]).tolist() == [[3, 27], [3, 28], [4, 27]]
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "distance of the trigger from the edges, pixels; 3" in said
    assert "--hide" not in said
    assert "visit" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data=digits", "--run=r"],
        ["--data=nothing"],
        ["--data=digits", "--fraction=2"],
        ["--run=r", "--size=3"],
    ],
)
def test_bad_input_is_one_line(tmp_path, refused, arguments):
    assert refused(command.main, *arguments, f"--out={tmp_path / 'x.npz'}")
    assert not (tmp_path / "x.npz").exists()


def test_the_set_of_a_run(tmp_path, capsys):
    setup = Setup(deterministic())
    run = network.open_run(setup, str(tmp_path))
    command.main([f"--run={run.path}", f"--out={tmp_path / 'set.npz'}"])
    with np.load(tmp_path / "set.npz") as found:
        for name, array in poisoned_set(setup).items():
            np.testing.assert_array_equal(found[name], array)

    # Data that changed since make another set.
    files.write_json(run.path / "inputs.json", {"digest": "another"})
    with pytest.raises(SystemExit):
        command.main([f"--run={run.path}", f"--out={tmp_path / 'other.npz'}"])
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "other.npz").exists()
