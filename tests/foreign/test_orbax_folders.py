"""Orbax checkpoints of Flax variables, of others and of one's own."""

import os

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from poison_jax import foreign, models
from poison_jax.errors import UserError

ARCHITECTURE = "conv a 4 3 pad=1; norm b; relu; flatten; linear c classes"


@pytest.fixture
def saved(tmp_path):
    """A checkpoint, and the variables in it."""
    model = models.Model(foreign.architecture(ARCHITECTURE)(3))
    variables = model.init(jax.random.key(0), (6, 6, 1))
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "net", variables)
    return tmp_path / "net", variables


def test_there_and_back(saved):
    path, variables = saved
    assert foreign.inspect(path)["c.weight"] == ((3, 144), "float32")
    found = foreign.load(path, ARCHITECTURE)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)


def test_bad_folders(saved, tmp_path):
    path, _ = saved
    with pytest.raises(UserError, match="it lacks conv1"):
        foreign.load(path, "preactresnet18")
    os.symlink("/etc/passwd", path / "link")
    with pytest.raises(UserError, match="symbolic link"):
        foreign.inspect(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no orbax checkpoint"):
        foreign.inspect(tmp_path / "empty")
