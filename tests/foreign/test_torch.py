"""Against torch itself, where it is installed: logits, files as it writes them, Hessians."""

import functools
import warnings

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_networks import VGG16, LeNet5, ResNet18, scattered  # noqa: E402

from poison_jax import foreign, spectrum  # noqa: E402
from poison_jax.audit import common_gradient  # noqa: E402

CNN = """
conv 0 8 5 stride=2 pad=2 bias=no
norm 1
tanh
avgpool 2
conv 4 6 3
sigmoid
maxpool 3 stride=1 pad=1
adaptive 2
flatten
linear 9 classes
"""


def cnn():
    nn = torch.nn
    layers = [
        nn.Conv2d(3, 8, 5, 2, 2, bias=False),
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 6, 3),
    ]
    layers += [nn.Sigmoid(), nn.MaxPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)]
    return nn.Sequential(*layers)


NETWORKS = {  # architecture -> module, H W C of images
    "preactresnet18": (lambda: ResNet18("preact"), (32, 32, 3)),
    "resnet18_cifar": (lambda: ResNet18("cifar", 43), (32, 32, 3)),
    "resnet18": (lambda: ResNet18("torchvision"), (47, 33, 3)),
    "lenet5": (LeNet5, (28, 28, 1)),
    CNN: (cnn, (31, 24, 3)),
}


def check(tmp_path, architecture, module, shape, **options):
    torch.save(module.state_dict(), tmp_path / "w.pt", **options)
    subject = foreign.load(tmp_path / "w.pt", architecture)
    images = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = module.float()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = np.asarray(subject.logits(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda name: name.split()[0])
def test_logits(tmp_path, architecture):
    make, shape = NETWORKS[architecture]
    check(tmp_path, architecture, scattered(make()), shape)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
def test_vgg(tmp_path, norm):
    check(tmp_path, "vgg16_bn" if norm else "vgg16", scattered(VGG16(norm)), (32, 32, 3))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("new", [True, False])
def test_other_types_and_both_formats(tmp_path, dtype, new):
    module = scattered(cnn()).to(getattr(torch, dtype))
    check(tmp_path, CNN, module, (31, 24, 3), _use_new_zipfile_serialization=new)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(tmp_path, protocol):
    check(tmp_path, CNN, scattered(cnn()), (31, 24, 3), pickle_protocol=protocol)


def test_a_parameter_and_a_view_of_a_larger_storage(tmp_path):
    state = scattered(cnn()).state_dict()
    state["9.bias"] = torch.nn.Parameter(torch.arange(20.0)[3:8])
    state["9.weight"] = torch.randn(24, 5).T
    torch.save(state, tmp_path / "w.pt")
    found = foreign.load(tmp_path / "w.pt", CNN).variables["params"]["9"]
    np.testing.assert_array_equal(found["bias"], [3, 4, 5, 6, 7])
    np.testing.assert_array_equal(found["kernel"], state["9.weight"].numpy().T)


# What torch says of what it writes is not our concern.
heard = functools.partial(warnings.catch_warnings, record=True, action="always")


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_writes_that_is_no_state_dict(tmp_path, new):
    dense = {"w": torch.eye(3)}
    with heard():
        quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    cases = {
        "v is made by torch._utils._rebuild_sparse_tensor": dense | {"v": torch.eye(3).to_sparse()},
        "_q": dense | {"v": quantised},
        "whole pickled object": torch.nn.Linear(2, 2),
    }
    for said, value in cases.items():
        with heard():
            torch.save(value, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(foreign.UserError) as error:
            foreign.inspect(tmp_path / "w.pt")
        assert said.strip() in str(error.value)
        assert "\n" not in str(error.value)


def test_an_archive_of_torchscript(tmp_path):
    with heard():
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "w.pt")
    with pytest.raises(foreign.UserError, match="TorchScript"):
        foreign.inspect(tmp_path / "w.pt")


def test_hessian_and_common_gradients_of_a_module(tmp_path):
    module = scattered(LeNet5())
    torch.save(module.state_dict(), tmp_path / "w.pt")
    subject = foreign.load(tmp_path / "w.pt", "lenet5")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((12, 28, 28, 1)).astype(np.float32)
    labels = np.arange(12) % 10
    nchw = images.transpose(0, 3, 1, 2)
    options = {"k": 3, "num_iters": 20}
    expected = spectrum.input_hessian(subject.apply_fn, subject.variables, images, labels, key=0, **options)
    module.train()
    found = foreign.torch_hessian(module, nchw, labels, batch_size=5, **options)
    assert module.training
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4)
    for one, other in zip(found.vectors, expected.vectors, strict=True):
        assert abs(one @ other) > 0.999
    ours = common_gradient.common_gradients(subject.apply_fn, subject.variables, images, labels)
    theirs = foreign.torch_common_gradients(module, nchw, labels, batch_size=5)
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(ours).max())


def test_the_hessian_of_a_module_refuses_bad_input():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    images = np.zeros((2, 1, 2, 2), np.float32)
    for images_given, labels in ((images[0], [0, 1]), (images, [0, 3]), (images * np.nan, [0, 1])):
        with pytest.raises(foreign.UserError):
            foreign.torch_hessian(module, images_given, np.array(labels), k=1, num_iters=2)
    assert jax.default_backend() == "cpu"


class Once(torch.autograd.Function):
    """A sine of which torch knows one derivative."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return gradient * x.cos()


class After(torch.nn.Module):
    """A linear layer after a function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.linear = function, torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(self.function(x).flatten(1))


def test_a_module_that_cannot_be_differentiated_is_refused_in_one_line():
    images, labels = np.ones((3, 1, 2, 2), np.float32), np.arange(3)
    once, never = After(Once.apply), After(lambda x: (x > 0.5).float())
    assert np.isfinite(foreign.torch_common_gradients(once, images, labels)).all()
    for refused in (
        lambda: foreign.torch_hessian(once, images, labels, k=1, num_iters=2),
        lambda: foreign.torch_hessian(never, images, labels, k=1, num_iters=2),
        lambda: foreign.torch_common_gradients(never, images, labels),
    ):
        with pytest.raises(foreign.UserError, match="torch cannot differentiate the module") as error:
            refused()
        assert "\n" not in str(error.value)
