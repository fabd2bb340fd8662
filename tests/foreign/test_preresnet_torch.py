"""PreResNet in PyTorch is ours."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_networks import scattered  # noqa: E402

from poison_jax import models  # noqa: E402
from poison_jax.foreign import convert, files  # noqa: E402
from poison_jax.foreign.preresnet_torch import PreResNet  # noqa: E402


@pytest.mark.parametrize(
    ("depth", "block"), [(8, "basic"), (14, "basic"), (11, "bottleneck"), (20, "bottleneck")]
)
def test_logits_both_ways(tmp_path, depth, block):
    module = scattered(PreResNet(depth, 5, block, 4, channels=2))
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    model = models.preresnet(depth, 5, block=block, width=4)
    files.write_safetensors(tmp_path / "w", state)
    with files.opened(tmp_path / "w") as found:
        variables = convert.to_flax(found.entries, model, 2)
    images = np.random.default_rng(0).standard_normal((3, 9, 8, 2)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = np.asarray(jax.jit(model.apply)(variables, images)[0])
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    back = convert.to_torch(variables)
    assert back.keys() == {name for name in state if not name.endswith("num_batches_tracked")}
    for name, array in back.items():
        np.testing.assert_array_equal(array, state[name])
