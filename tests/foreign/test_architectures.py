"""Architectures by name and by description, and how their weights are matched: by name, both sides listed."""

import jax
import numpy as np
import pytest
import torch_format as tf

from poison_jax import foreign, models
from poison_jax.errors import UserError
from poison_jax.foreign import convert, files, sequential

WEIGHTS = tf.weights()


def numbers(model, shape):
    """Variables of a network, in no time."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: model.init(key, shape), jax.random.key(0))
    return jax.tree.map(lambda leaf: rng.uniform(size=leaf.shape).astype(np.float32), shapes)


def loaded(tmp_path, arrays, architecture=tf.DESCRIPTION):
    files.write_safetensors(tmp_path / "w", arrays)
    return foreign.load(tmp_path / "w", architecture)


def refused(tmp_path, arrays, architecture=tf.DESCRIPTION):
    with pytest.raises(UserError) as error:
        loaded(tmp_path, arrays, architecture)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", [name for name in foreign.NAMES if not name.startswith("vgg")])
def test_there_and_back(tmp_path, name):
    """A network's weights, by PyTorch's names, are that network again; its functions are compiled once."""
    variables = numbers(models.Model(foreign.architecture(name)(4)), (28, 28, 1 if name == "lenet5" else 3))
    state = convert.to_torch(variables)
    found = loaded(tmp_path, state, name)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
    assert loaded(tmp_path, state, name).apply_fn == found.apply_fn


def test_the_names_of_backdoorbench():
    names = convert.to_torch(numbers(models.Model(foreign.architecture("preactresnet18")(10)), (8, 8, 3)))
    assert len(names) + 16 == 102  # with a counter for each batch norm, as torch has
    assert {"layer2.0.shortcut.0.weight", "layer1.0.bn1.running_var", "linear.bias"} <= names.keys()
    assert not {"bn1.weight", "layer1.0.shortcut.0.weight"} & names.keys()


def test_networks_of_any_size_of_image(tmp_path):
    """The size of what is flattened is the file's to say."""
    for side in (6, 10):
        arrays, images = tf.weights(side=side), np.ones((2, side, side, 1), np.float32)
        np.testing.assert_allclose(
            loaded(tmp_path, arrays).logits(images), tf.logits(arrays, images), atol=1e-5
        )
    with pytest.raises(Exception, match="shape"):
        loaded(tmp_path, tf.weights(side=10)).logits(np.ones((2, 6, 6, 1), np.float32))


def test_names_and_shapes_that_do_not_match_are_listed(tmp_path):
    others = dict(WEIGHTS)
    others["d.bias"] = others.pop("c.0.bias")
    assert "it lacks c.0.bias; it has besides d.bias" in refused(tmp_path, others)
    others = WEIGHTS | {"a.weight": np.zeros((4, 1, 5, 5), np.float32)}
    assert "it has a.weight [4, 1, 5, 5] for [4, 1, 3, 3]" in refused(tmp_path, others)
    said = refused(tmp_path, WEIGHTS, "preactresnet18")
    assert "it lacks conv1.weight, layer1.0.bn1.bias, layer1.0.bn1.running_mean and 83 more" in said


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("preactresnet", "did you mean preactresnet18?"),
        ("zzz", "use preactresnet18"),
        ("conv a 4; relu", "write conv NAME UNITS SIZE"),
        ("conv a 4 3 dilation=2; relu", "write conv"),
        ("conv a 4 3 bias=True; relu", "bias is yes or no"),
        ("linear a 4 bias=1; relu", "bias is yes or no"),
        ("conv a 4 3 init=xavier; relu", "init is he"),
        ("conv a 4 x; relu", "size must be a whole number"),
        ("conv a/b 4 3; relu", "a name has letters"),
        ("convolve a; relu", "use conv, norm"),
        ("linear a 2; linear a 2", "no two of one name"),
        ("relu; flatten", "needs layers with weights"),
        (";", "needs layers with weights"),
        ("conv a 4 3 pad=1; linear c.0 3", "comes before flatten"),
    ],
)
def test_architectures_that_are_none(tmp_path, architecture, said):
    assert said in refused(tmp_path, WEIGHTS, architecture)


def test_a_description_in_a_file(tmp_path):
    (tmp_path / "net.txt").write_text("# mine\n" + tf.DESCRIPTION.replace("; ", "\n"))
    text = foreign.read_description(tmp_path / "net.txt")
    assert foreign.architecture(text)(3) == foreign.architecture(tf.DESCRIPTION)(3)
    with pytest.raises(UserError, match="cannot be read"):
        foreign.read_description(tmp_path / "absent.txt")


def test_a_module_of_ones_own(tmp_path):
    model = models.preresnet(8, 3, width=4)
    variables = numbers(model, (8, 8, 1))
    found = loaded(tmp_path, convert.to_torch(variables), model.module)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_adaptive_pooling(size):
    """Against its definition: means of regions that may overlap."""
    x = np.random.default_rng(0).uniform(size=(1, 5, 4, 2)).astype(np.float32)
    found = foreign.architecture(f"adaptive {size}; norm a")(1).bind({}).layers
    assert found[0].size == size
    pooled = np.asarray(sequential._adaptive(x, size))
    for i in range(size):
        for j in range(size):
            rows = x[:, i * 5 // size : -(-(i + 1) * 5 // size), j * 4 // size : -(-(j + 1) * 4 // size)]
            np.testing.assert_allclose(pooled[:, i, j], rows.mean((1, 2)), rtol=1e-6)
