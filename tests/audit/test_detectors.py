"""What all detectors have in common: how they are called, what they return, one network in all of them."""

import numpy as np
import pytest
from linear_subject import linear, subject, with_features

from poison_jax.audit import (
    activation_clustering,
    maximum_margin,
    neural_cleanse,
    scale_up,
    scan,
    spectral_signatures,
    strip,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(24, 3, 3, 1)).astype(np.float32)
LABELS = np.arange(24) % 4
NETWORK = subject(RNG.standard_normal((9, 4)), apply_fn=with_features, normalisation=(0.5, 0.3))


@pytest.mark.parametrize("module", [neural_cleanse, maximum_margin])
def test_detectors_of_networks(module):
    options = {"key": 0, "batch_size": 16, "steps": 10}
    score = module.DETECTOR.score(NETWORK, IMAGES, LABELS, **options)
    assert np.isfinite(score.statistic)
    assert score.target in range(4)
    assert score.picture.shape == (3, 3, 1)
    assert score.authors in ("poisoned", "clean")
    assert all(np.isfinite(value) for value in score.others.values())
    assert module.DETECTOR.score(NETWORK, IMAGES, LABELS, **options).statistic == score.statistic


@pytest.mark.parametrize("module", [activation_clustering, spectral_signatures, scan])
def test_detectors_of_data(module):
    score = module.DETECTOR.score(NETWORK, IMAGES, LABELS, key=0, batch_size=7)
    assert score.suspicion.shape == score.flagged.shape == (24,)
    assert score.classes.shape == (4,)
    assert np.isfinite(score.suspicion).all()
    again = module.DETECTOR.score(NETWORK, IMAGES, LABELS, key=0, batch_size=7)
    np.testing.assert_array_equal(again.suspicion, score.suspicion)


@pytest.mark.parametrize("module", [strip, scale_up])
def test_detectors_of_inputs(module):
    suspicion = module.DETECTOR.score(NETWORK, IMAGES, IMAGES[:5], key=0, batch_size=7)
    assert suspicion.shape == (24,)
    assert np.isfinite(suspicion).all()


@pytest.mark.parametrize(
    ("module", "other", "count", "options", "changed"),
    [
        (neural_cleanse, LABELS, 24, {"steps": 2}, {}),
        (maximum_margin, LABELS, 24, {"steps": 2}, {}),
        (strip, IMAGES[:5], 13, {}, {}),
        (scale_up, IMAGES[:5], 13, {"factors": (3, 5)}, {"factors": (2, 4, 8)}),
    ],
)
def test_one_compilation_for_all_networks_of_a_function(module, other, count, options, changed):
    """Whatever their variables are; of inputs, which come in batches, whatever their number is, too."""
    traced, counts = [], []

    def counted(variables, images):
        traced.append(images.shape)
        return linear(variables, images)

    for scale, number, given in ((1, 24, options), (2, count, options | changed)):
        network = subject(scale * np.asarray(NETWORK.variables["w"]), apply_fn=counted)
        module.DETECTOR.score(network, IMAGES[:number], other[:number], key=0, batch_size=4, **given)
        counts.append(len(traced))
    assert 0 < counts[0] == counts[1]


def test_names_differ():
    networks, inputs = (neural_cleanse, maximum_margin), (strip, scale_up)
    modules = (*networks, activation_clustering, spectral_signatures, scan, *inputs)
    detectors = [module.DETECTOR for module in modules]
    assert len({detector.name for detector in detectors}) == len(detectors)
    assert all(detector.needs and detector.statistic for detector in detectors)
