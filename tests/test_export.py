"""A run's network given away: what `export` prints opens it, in Flax and in PyTorch."""

import importlib.util
import json

import numpy as np
import pytest
from toys import tiny

from poison_jax import experiments, export
from poison_jax.errors import UserError
from poison_jax.experiments import subjects

pytestmark = pytest.mark.slow  # two networks are trained


def trained(workdir, **changes):
    (run,) = experiments.run(tiny(analysis__features=0, **changes), str(workdir))
    return run


def printed(capsys, run, folder):
    """What the command prints: a block of Python for Flax, perhaps one for PyTorch."""
    capsys.readouterr()
    export.main([str(run.path), f"--out={folder}"])
    _, _, rest = capsys.readouterr().out.partition("In Flax, with safetensors installed:\n")
    flax, _, torch = rest.partition("\nIn PyTorch")
    return flax, torch.partition(":\n")[2]


@pytest.mark.parametrize("foreign", [False, True])
def test_what_is_printed_opens_it(tmp_path, capsys, monkeypatch, foreign):
    pytest.importorskip("safetensors")
    layers = "conv a 4 3 pad=1; norm b; relu; maxpool 2; flatten; linear c classes"
    named = {"model__name": "foreign", "model__architecture": layers} if foreign else {}
    run = trained(tmp_path / "runs", **named)
    flax, torch = printed(capsys, run, tmp_path / "net")
    (subject,), images, _ = subjects.of_runs([run], count=5)
    expected = subject.logits(images)
    names = {"images": images}
    exec(flax, names)
    np.testing.assert_allclose(names["logits"], expected, rtol=1e-5, atol=1e-5)
    about = json.loads((tmp_path / "net" / "network.json").read_text())
    assert about["classes"] == list("0123456789")
    has_torch = importlib.util.find_spec("torch") is not None
    assert (tmp_path / "net" / "state_dict.pt").exists() == has_torch
    assert bool(torch) == (has_torch and not foreign)
    if torch:
        monkeypatch.syspath_prepend(tmp_path / "net")
        import torch as torch_

        names["images"] = torch_.from_numpy(images.transpose(0, 3, 1, 2).copy())
        exec(torch, names)
        found = names["logits"].detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_bad_input(tmp_path, refused):
    for arguments in ([str(tmp_path), "--out=new"], ["runs", f"--out={tmp_path}"]):
        assert refused(export.main, *arguments)
    assert issubclass(UserError, ValueError)
