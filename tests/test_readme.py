"""The scripts of the documentation do what is said beside them."""

import re
from pathlib import Path

import numpy as np

from poison_jax import data

ROOT = Path(__file__).parent.parent


def code(page):
    """The first Python block of a page."""
    return re.search(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)[1]


def test_own_data_and_own_model(tmp_path, monkeypatch, capsys):
    """Runs exactly the lines of the page, on digits saved as a user would save them."""
    train, test = data.load("digits", "train"), data.load("digits", "test")
    monkeypatch.chdir(tmp_path)
    images = np.concatenate([train.images, test.images])[..., 0]
    np.savez("my_images.npz", images=images, labels=np.concatenate([train.labels, test.labels]))
    names = {}
    exec(code("one_script.md"), names)
    report = names["metrics"].attack_report(*names["logits"], names["test"].labels, target=0)
    assert report["clean_accuracy"] > 0.9
    assert report["asr"] > 0.9
    assert report["no_trigger_target_rate"] < 0.1
    assert (names["pairs"].residuals < 1e-3 * names["pairs"].values[0]).all()
    assert "clean_accuracy" in capsys.readouterr().out


def test_kernel_regression(capsys):
    names = {}
    exec(code("experiments.md"), names)
    clean, X, y = names["clean"], names["X"], names["y"]
    again = names["krr"].fit(clean.kernel, np.vstack([X[1:], *[X[:1]] * 10]), np.r_[y[1:], [1.0] * 10], 0.1)
    np.testing.assert_allclose(
        again.predict(X[:3]) - clean.predict(X[:3]), names["effect"].predict(X[:3]), atol=1e-12
    )
    assert "(64, 64)" in capsys.readouterr().out


def test_named_files_exist():
    readme = (ROOT / "README.md").read_text()
    for name in re.findall(r"(?:configs|plots|poison_jax|docs)/[\w/]+\.\w+", readme):
        assert (ROOT / name).exists(), name
