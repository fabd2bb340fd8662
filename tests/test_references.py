"""References of a recipe: which networks they are, and that they are trained once."""

import numpy as np
import pytest
from toys import tiny

from poison_jax import config as config_lib
from poison_jax import experiments, references
from poison_jax.errors import UserError
from poison_jax.experiments import subjects
from poison_jax.runs.store import Run
from poison_jax.sweeps import grid


def test_a_recipe_is_what_seed_and_poison_do_not_change():
    base = tiny()
    for change in ({"seed": 7}, {"poison__fraction": 0.3}, {"poison__target": 2}, {"spectrum__k": 1}):
        assert subjects.recipe(tiny(**change)) == subjects.recipe(base)
    for change in ({"train__epochs": 3}, {"penalty__kappa": 1.0}, {"train__weight_decay": 0.5}):
        assert subjects.recipe(tiny(**change)) != subjects.recipe(base)


def test_references_are_clean_networks_of_the_recipe_with_seeds_of_their_own():
    other = {"name": "another", "poison__trigger": "square", "poison__size": 3, "poison__margin": 0}
    config = tiny(poison__fraction=0.3, poison__target=2, poison__labels="all_to_all", seed=5, **other)
    sweep = references.sweep_of(config, 3)
    cells = grid.cells(sweep)
    assert [cell.config.seed for cell in cells] == [1000, 1001, 1002]
    for cell in cells:
        assert cell.config.poison.fraction == 0
        assert subjects.recipe(cell.config) == subjects.recipe(config)
    # An attack of another kind has the same references.
    assert [cell.run for cell in grid.cells(references.sweep_of(tiny(), 3))] == [cell.run for cell in cells]
    with pytest.raises(UserError, match="at least one"):
        references.sweep_of(config, 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A poisoned network and one of its references, trained in this process."""
    workdir = tmp_path_factory.mktemp("runs")
    config = tiny(analysis__features=0)
    (poisoned,) = experiments.run(config, str(workdir))
    cell = grid.cells(references.sweep_of(config, 1))[0]
    (clean,) = experiments.run(config_lib.single(cell.config, "train"), str(workdir))
    return poisoned, clean


def test_a_run_is_a_subject(runs):
    (first, second), images, labels = subjects.of_runs(runs, count=20)
    assert images.dtype == np.float32
    assert images.shape == (20, 8, 8, 1)
    assert images.min() >= 0
    assert images.max() <= 1
    assert first.recipe == second.recipe
    # The accuracy on all test images is the one in the run's result.
    (subject,), images, labels = subjects.of_runs(runs[:1], count=10**6)
    accuracy = np.mean(subject.logits(images).argmax(-1) == labels)
    np.testing.assert_allclose(accuracy, Run(runs[0].path).result()["clean_accuracy"], atol=1e-6)


def test_runs_of_two_recipes_are_no_subjects_of_one_audit(runs, tmp_path):
    (other,) = experiments.run(tiny(analysis__features=0, train__weight_decay=0.01), str(tmp_path))
    with pytest.raises(UserError, match="another recipe"):
        subjects.of_runs([runs[0], other])
