"""Numbers do not depend on the environment: draws are pinned, what changes the rounding is recorded."""

import json

import flax
import jax
import numpy as np
import pytest

from poison_jax import environment, models
from poison_jax.runs import provenance

OTHER_DRAWS = {  # `test_cli.py` trains with them
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "5",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "FLAX_FIX_RNG_SEPARATOR": "1",
}


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
def test_a_key_is_that_of_threefry(seed, x64):
    expected = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
    np.testing.assert_array_equal(jax.random.key_data(environment.key(seed)), expected)


def test_a_key_does_not_depend_on_settings():
    """Also where nothing is pinned: in somebody else's program."""
    before = jax.random.key_data(environment.key(7))
    with jax.default_prng_impl("rbg"):
        assert str(jax.random.key_impl(environment.key(7))) == environment.PRNG
        np.testing.assert_array_equal(jax.random.key_data(environment.key(7)), before)
    jax.config.update("jax_random_seed_offset", 5)
    try:
        assert jax.random.key_data(jax.random.key(7))[1] != 7
        np.testing.assert_array_equal(jax.random.key_data(environment.key(7)), before)
    finally:
        jax.config.update("jax_random_seed_offset", 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_a_key_cannot_hold_is_refused(seed):
    with pytest.raises(ValueError, match=r"must be in \[0, 4294967295\]"):
        environment.key(seed)


def test_initial_weights_do_not_depend_on_flax_settings():
    model, key = models.preresnet(8, 3, width=1), environment.key(0)
    before = model.init(key, (8, 8, 1))
    jax.clear_caches()
    with flax.config.temp_flip_flag("fix_rng_separator", True):
        again = model.init(key, (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, before, again)


def test_a_result_says_what_changes_the_rounding(monkeypatch):
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_enable_fast_math=true --xla_dump_to=/mine"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.delenv("CXX", raising=False)
    with jax.default_matmul_precision("highest"), jax.enable_x64(True):
        found = provenance.here()["environment"]
    assert found["jax_default_matmul_precision"] == "highest"
    assert found["jax_enable_x64"] is True
    assert found["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
    assert found["NVIDIA_TF32_OVERRIDE"] == "0"
    assert "CXX" not in found
    assert found["jax_default_prng_impl"] == environment.PRNG
    json.dumps(found)


def test_every_setting_is_one_of_jax():
    """A name that a newer JAX has dropped is noticed here."""
    for name in (*environment.PINNED, *environment.RECORDED):
        assert hasattr(jax.config, name), name
