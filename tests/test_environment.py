"""Numbers do not depend on the environment: draws are pinned, what changes the rounding is recorded."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Small, batch, training

from poison_jax import environment, features, fisher, models, near_clone, spectrum, train
from poison_jax.audit import common_gradient
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


LOOKS = {
    "input Hessian": lambda apply, *of: spectrum.input_hessian(apply, *of, k=1, num_iters=2),
    "streamed": lambda apply, *of: spectrum.input_hessian(apply, *of, k=1, num_iters=2, python_loop=False),
    "of each class": lambda apply, *of: spectrum.per_class(apply, *of, 3, k=1, num_iters=2),
    "Fisher": lambda apply, *of: fisher.input_fisher(apply, *of, k=1, num_iters=2),
    "common gradients": lambda apply, *of: common_gradient.common_gradients(apply, *of),
    "features": lambda apply, variables, images, _: features.extract(apply, variables, images, batch_size=8),
    "near clones": lambda apply, variables, images, _: near_clone.measure(
        apply, variables, *[images] * 4, 0, batch_size=8, hessian_points=1
    ),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_is_looked_at_is_computed_in_full_precision(look):
    """Every product of the network, whatever the process does by default."""
    (images, labels), traced = batch(6), []

    def apply(weights, images):
        traced.append(jax.config.jax_default_matmul_precision)
        pixels = images.reshape(len(images), -1)
        return jnp.tanh(pixels) @ weights, models.Features(pixels, images)

    weights = np.random.default_rng(0).normal(size=(36, 3)).astype(np.float32)
    with jax.default_matmul_precision("bfloat16"):
        look(apply, weights, images, labels)
    assert set(traced) == {"highest"}


def test_training_is_in_the_precision_that_is_asked_for():
    """Forwards and backwards; by default the process's own."""

    def precisions(precision, process=None):
        _, data, knobs, program = training(kappa=1.0)
        program = program._replace(model=models.Model(Small(4)), precision=precision)
        state, order = train.init_state(jax.random.key(0), (8, 8, 1), program), np.zeros((1, 16), np.int32)
        with jax.default_matmul_precision(process):
            text = train.train_step.lower(state, data, order, knobs, program=program).as_text()
        products = re.findall(r"stablehlo\.(?:convolution|dot_general).*", text)
        assert len(products) > 5
        return {re.search(r"precision.*?(DEFAULT|HIGHEST)|$", line)[1] for line in products}

    assert precisions("default") <= {None, "DEFAULT"}
    assert precisions("highest") == precisions("default", "highest") == {"HIGHEST"}


@pytest.mark.parametrize(
    ("variables", "plugin", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, "xla_cuda13", environment.GRAPHS),
        ({"CUDA_VISIBLE_DEVICES": "0", "XLA_FLAGS": "--a=1"}, "xla_cuda12", f"--a=1 {environment.GRAPHS}"),
        ({"CUDA_VISIBLE_DEVICES": "0", "POISON_JAX_GRAPHS": "0"}, "xla_cuda13", None),
        ({"CUDA_VISIBLE_DEVICES": "0", "XLA_FLAGS": "--xla_gpu_enable_command_buffer="}, "xla_cuda13", None),
        ({"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cpu"}, "xla_cuda13", None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "xla_other", None),
        ({"CUDA_VISIBLE_DEVICES": ""}, "xla_cuda13", None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "xla_cuda13", None),
    ],
)
def test_graphs_are_asked_for_where_jax_takes_gpus(monkeypatch, variables, plugin, expected):
    """And nowhere else, nor where the user has chosen: what was set stays as it was."""
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "POISON_JAX_GRAPHS", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = [EntryPoint(plugin, "jax_plugins", "jax_plugins")]
    monkeypatch.setattr(environment.importlib.metadata, "entry_points", lambda group: found)
    environment.pin()
    assert os.environ.get("XLA_FLAGS") == (expected or variables.get("XLA_FLAGS"))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", ["0"]),
        ("2, 10,,1", ["2", "10"]),
        ("GPU-8932f937,MIG-1/0,x", ["GPU-8932f937", "MIG-1/0"]),
    ],
)
def test_visible_gpus_end_at_an_entry_that_is_none(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert environment.gpus() == expected


def test_xla_knows_the_graphs_flag():
    """One that it does not know ends the process; CPUs read it and do nothing."""
    program = "import jax; print(jax.jit(lambda x: x + 1)(1.0))"
    variables = os.environ | {"XLA_FLAGS": environment.GRAPHS, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2.0\n"), done.stderr


@pytest.mark.parametrize("own", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_a_share_of_the_memory(own):
    for share, expected in ((1, {}), (0.5, {"XLA_CLIENT_MEM_FRACTION": "0.450"})):
        variables = {}
        environment.share_memory(variables, share)
        assert variables == expected
    variables = {own: "0.2"}
    environment.share_memory(variables, 0.5)
    assert variables == {own: "0.2"}
