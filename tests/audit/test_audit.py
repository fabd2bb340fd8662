"""An audit from end to end, on networks whose answer is known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest

from poison_jax import audit
from poison_jax.audit.detector import Detector
from poison_jax.errors import UserError
from poison_jax.subject import Subject

REFERENCES = [planted.network(seed) for seed in range(100, 119)]


@pytest.fixture(scope="module")
def poisoned():
    return audit.audit(planted.network(1, backdoor=6.0), *planted.images(), REFERENCES)


def test_a_backdoor_is_found_and_its_target_named(poisoned):
    assert poisoned.verdict == "poisoned-like"
    assert poisoned.p_value == 1 / 20
    assert poisoned.target == planted.TARGET
    assert np.abs(poisoned.trigger).sum(-1).argmax() == np.ravel_multi_index(planted.PIXEL, planted.SHAPE[:2])
    assert [row.detector for row in poisoned.table] == [
        "input Hessian",
        "common gradient",
        "its localisation",
        "common gradient's flips",
    ]
    assert all(row.references[0] <= row.references[1] for row in poisoned.table)
    # One step along the backdoor sends everything to its target; along a clean common gradient it does not.
    assert poisoned.flip_rate > 0.95
    assert max(poisoned.reference_flip_rates) < 0.7
    assert poisoned.eigenpairs.residuals[0] < 1e-3 * poisoned.eigenpairs.values[0]


def test_a_clean_network_is_not_distinguishable_never_clean():
    found = audit.audit(planted.network(7), *planted.images(), REFERENCES)
    assert found.verdict == "not distinguishable"
    assert found.p_value > 0.05
    assert "can hide" in found.reason


def test_without_enough_references_it_cannot_say():
    subject = planted.network(1, backdoor=6.0)
    alone = audit.audit(subject, *planted.images())
    assert alone.verdict == "cannot say"
    assert alone.p_value is None
    assert alone.target == planted.TARGET  # the scores are there
    few = audit.audit(subject, *planted.images(), REFERENCES[:5])
    assert few.verdict == "cannot say"
    assert "it takes 19" in few.reason
    assert few.p_value == 1 / 6
    enough = audit.audit(subject, *planted.images(), REFERENCES[:9], alpha=0.1)
    assert enough.verdict == "poisoned-like"


def test_an_accuracy_near_chance_cannot_be_judged():
    images, labels = planted.images()
    found = audit.audit(planted.network(0), images, np.roll(labels, 1), REFERENCES)
    assert found.verdict == "cannot say"
    assert "normalisation" in found.reason


def test_a_normalisation_is_applied_once():
    """A network of normalised images, and the same one with the normalisation in its weights."""
    images = planted.images()[0]
    plain = planted.network(3)
    mean, std = np.array([0.1, 0.2]), np.array([2.0, 0.5])
    w = plain.variables["w"].reshape(*planted.SHAPE, -1)
    other = {
        "w": (w * std[:, None]).reshape(plain.variables["w"].shape).astype(np.float32),
        "b": np.einsum("hwck,c->k", w, mean).astype(np.float32),
    }
    normalised = Subject(planted.linear, other, normalisation=(mean, std))
    np.testing.assert_allclose(normalised.logits(images), plain.logits(images), atol=1e-5)
    assert normalised.of_pixels is Subject(planted.linear, other, normalisation=(mean, std)).of_pixels


def test_a_report_is_written(poisoned, tmp_path):
    files = poisoned.write(tmp_path / "audit")
    assert [file.name for file in files] == ["report.json", "report.html", "report.npz"]
    kept = json.loads(files[0].read_text())
    assert (kept["verdict"], kept["p_value"], kept["target"]) == ("poisoned-like", 0.05, planted.TARGET)
    assert len(kept["table"]) == 4
    assert len(kept["eigenpairs"]["values"]) == len(kept["eigenpairs"]["residuals"]) == 2
    page = files[1].read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    with np.load(files[2]) as arrays:
        np.testing.assert_array_equal(arrays["trigger"], poisoned.trigger)
    assert str(poisoned) == "poisoned-like: p = 0.05"


def test_a_further_detector_stands_beside_the_verdict_and_never_enters_it():
    def shouting(subject, images, labels, *, key, batch_size):
        return audit.NetworkScore(float(subject is suspect), target=1, authors="poisoned")

    suspect = planted.network(7)
    detector = Detector("shouting", "whether it is the subject", "nothing", shouting)
    found = audit.audit(suspect, *planted.images(), REFERENCES, detectors=[detector])
    assert found.verdict == "not distinguishable"
    assert (found.table[4].p_value, found.table[4].authors) == (1 / 20, "poisoned")
    assert found.reason.endswith("; beside the verdict stands out: shouting (p = 0.05)")


def probabilities(variables, images):
    return jax.nn.softmax(planted.linear(variables, images))


def one_class(variables, images):
    return jnp.zeros((len(images), 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, x, y: (s, x * 255, y), "divide them by 255"),
        (lambda s, x, y: (s, x * 4 - 2, y), "normalised already"),
        (lambda s, x, y: (s, (x * 255).astype(np.uint8), y), "scale"),
        (lambda s, x, y: (s, x[:, :, :, 0], y), "are not"),
        (lambda s, x, y: (s, x[:, :5], y), "does not take images"),
        (lambda s, x, y: (s, x, y + 1), "labels"),
        (lambda s, x, y: (s, x, y[:5]), "labels"),
        (lambda s, x, y: (s, x[:3], y[:3]), "give one a class"),
        (lambda s, x, y: (Subject(probabilities, s.variables), x, y), "probabilities"),
        (lambda s, x, y: (Subject(one_class, {}), x, y * 0), "one class"),
    ],
)
def test_bad_input_is_one_line(change, said):
    with pytest.raises(UserError, match=said):
        audit.audit(*change(planted.network(0), *planted.images()))


def test_references_that_calibrate_nothing_are_refused():
    images, labels = planted.images()
    with pytest.raises(UserError, match="another recipe"):
        audit.audit(planted.network(0), images, labels, [planted.network(1, recipe="other")])
    untrained = Subject(planted.linear, jax.tree.map(np.zeros_like, REFERENCES[0].variables), recipe="linear")
    with pytest.raises(UserError, match="reference 2 has an accuracy"):
        audit.audit(planted.network(0), images, labels, [REFERENCES[0], untrained])
    with pytest.raises(UserError, match="alpha"):
        audit.audit(planted.network(0), images, labels, alpha=0.0)


def test_inputs_and_data_are_calibrated_on_held_out_clean_ones():
    """A detector that measures the planted pixel."""
    images, labels = planted.images(200)
    triggered = images[:20].copy()
    triggered[:, planted.PIXEL[0], planted.PIXEL[1]] = 1
    subject = planted.network(0)

    def brightness(subject, images, clean, *, key, batch_size):
        return images[:, planted.PIXEL[0], planted.PIXEL[1]].mean(-1)

    of_inputs = Detector("brightness", "of a pixel", "images", brightness)
    found = audit.inputs(subject, np.concatenate([triggered, images[20:40]]), images[40:], of_inputs)
    assert found.flagged[:20].all()
    assert found.flagged[20:].sum() <= 2
    assert found.p_values.min() == 1 / 81

    def of_examples(subject, images, labels, *, key, batch_size):
        suspicion = brightness(subject, images, None, key=key, batch_size=None)
        return audit.DataScore(suspicion, np.zeros(4), suspicion > 0.9)

    poisoned = np.concatenate([triggered, images[20:100]])
    found = audit.data(
        subject,
        poisoned,
        labels[:100],
        Detector("brightness", "of a pixel", "images", of_examples),
        clean=(images[100:], labels[100:]),
    )
    assert found.flagged[:20].all()
    assert not found.flagged[20:].all()


def test_a_detector_of_data_that_learns_from_clean_images_is_calibrated_by_others():
    images, labels = planted.images(200)
    seen = {}

    def of_examples(subject, images, labels, *, key, clean, batch_size):
        seen["clean"], seen["scored"] = clean, images
        return audit.DataScore(np.arange(len(images)), np.zeros(4), np.zeros(len(images), bool))

    detector = Detector("order", "of the examples", "images", of_examples, uses_clean=True)
    found = audit.data(
        planted.network(0), images[:100], labels[:100], detector, clean=(images[100:], labels[100:])
    )
    np.testing.assert_array_equal(seen["clean"][0], images[100::2])
    np.testing.assert_array_equal(seen["clean"][1], labels[100::2])
    np.testing.assert_array_equal(seen["scored"], np.concatenate([images[:100], images[101::2]]))
    assert (found.p_values == 1).all()  # every one of the fifty lies above
