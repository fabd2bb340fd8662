"""The references of `python -m poison_jax.audit`: what they cannot be is refused before any is trained."""

import numpy as np
import pytest
from toys import tiny

from poison_jax import references
from poison_jax.audit import __main__ as command
from poison_jax.errors import UserError
from poison_jax.runs import files


def stored(folder, **changes):
    """The folder of a run: its config, as if it had been trained."""
    (folder / "checkpoints").mkdir(parents=True)
    config = tiny(**changes)
    config.experiment = "train"
    files.write_json(folder / "config.json", files.plain(config.to_dict()))
    (folder / "result.json").write_text("{}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--alpha=2"], "alpha = 2.0: use a number between 0 and 1"),
        (["--alpha=0.01"], "--alpha 0.01 takes 99 references: give --references 99, or 0"),
        (["--references=5"], "--alpha 0.05 takes 19 references"),
        (["--references=1", "--alpha=0.5"], "--alpha 0.5 takes 2 references"),
    ],
)
def test_an_alpha_that_the_references_cannot_reach(tmp_path, refused, options, said):
    stored(tmp_path / "run")
    assert said in refused(command.main, tmp_path / "run", *options)


def test_of_a_recipe_one_run_of_each_seed_is_a_reference(tmp_path):
    """Without poison its target and trigger change nothing: two folders, one network."""
    for name, changes in {
        "a": {"seed": 1},
        "b": {"seed": 1, "poison__target": 3},
        "c": {"seed": 1, "poison__trigger": "square"},
        "d": {"seed": 2, "poison__target": 3},
        "poisoned": {"seed": 3, "poison__fraction": 0.3},
        "hidden": {"seed": 4, "poison__hide": 1.0},
        "other": {"seed": 5, "train__epochs": 3},
    }.items():
        stored(tmp_path / name, **({"poison__fraction": 0.0} | changes))
    found = command._clean_runs(tmp_path, tiny(seed=1), own_code=False)
    assert [run.path.name for run in found] == ["a", "d"]
    # A clean subject is in the store by whatever name.
    found = command._clean_runs(tmp_path, tiny(seed=1, poison__fraction=0.0), own_code=False)
    assert [run.path.name for run in found] == ["d"]
    with pytest.raises(UserError, match="no finished clean run"):
        command._clean_runs(tmp_path, tiny(train__epochs=4), own_code=False)


def test_references_are_not_trained_on_a_file_that_says_that_it_is_poisoned(tmp_path, refused, monkeypatch):
    monkeypatch.setattr("poison_jax.sweeps.run", None)
    rng, file = np.random.default_rng(0), tmp_path / "mine.npz"
    arrays = {"images": rng.integers(0, 256, (40, 8, 8, 1), np.uint8), "labels": np.arange(40) % 10}
    for marks in ({}, {"poisoned": np.zeros(40, bool)}, {"poisoned": np.array(["yes"] * 40)}):
        np.savez(file, **arrays, **marks)
        references.check_data(str(file))
    np.savez(file, **arrays, poisoned=np.arange(40) < 3)
    said = f"{file} says that 3 of its images are poisoned"
    stored(tmp_path / "run", data__name=str(file), poison__fraction=0.0)
    for options in ([], [f"--null={tmp_path}"]):
        assert said in refused(command.main, tmp_path / "run", *options)
    with pytest.raises(UserError, match="3 of its images are poisoned"):
        references.references(tiny(data__name=str(file)))
    references.check_data("digits")
    references.check_data(str(tmp_path / "absent.npz"))
    file.write_bytes(b"PK damaged")
    references.check_data(str(file))
