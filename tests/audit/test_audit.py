"""An audit from end to end, on networks whose answer is known."""

import json
import weakref

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
    # One reference reaches p = .5 by number, but has no other to lie away from.
    one = audit.audit(subject, *planted.images(), REFERENCES[:1], alpha=0.5)
    assert one.verdict == "cannot say"
    assert "too few references (1) to reach p = 0.5: it takes 2" in one.reason


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


def test_a_normalisation_of_other_channels_is_refused():
    """Grey images would become three channels by broadcasting."""
    for mean, std in (([0.5] * 3, 1.0), (0.5, [1.0] * 3)):
        subject = Subject(planted.linear, planted.network(0).variables, normalisation=(mean, std))
        for function in (subject.normalise, subject.logits):
            with pytest.raises(UserError, match="images of 1 channels, normalisation of 3"):
                function(np.zeros((2, 6, 6, 1), np.float32))


def test_of_the_references_numbers_alone_are_kept(monkeypatch):
    """Their gradients, [K, H, W, C] each, would fill the memory where there are many classes."""
    found, alive = [], []
    compute = audit.common_gradient.common_gradients

    def watched(*arguments, **options):
        gradients = compute(*arguments, **options)
        found.append(weakref.ref(gradients))
        return gradients

    monkeypatch.setattr(audit.common_gradient, "common_gradients", watched)
    report = audit.audit(
        planted.network(1),
        *planted.images(),
        REFERENCES[:3],
        on_model=lambda: alive.append(sum(gradients() is not None for gradients in found)),
    )
    assert report.trigger.shape == planted.SHAPE
    assert len(found) == 4
    assert alive == [0, 0, 0, 0]


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


def not_finite(variables, images):
    return jnp.log(planted.linear(variables, images) - 1e6)


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
        (lambda s, x, y: (Subject(not_finite, s.variables), x, y), "not finite logits"),
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
    variables = planted.network(0).variables
    more = Subject(planted.linear, {"w": np.pad(variables["w"], ((0, 0), (0, 2))), "b": np.zeros(6)})
    for subject, reference in ((more, REFERENCES[0]), (planted.network(0), more)):
        with pytest.raises(UserError, match=r"reference 1 tells [46] classes apart, the subject [46]"):
            audit.audit(subject, images, labels, [reference])
    sure = Subject(probabilities, variables)
    with pytest.raises(UserError, match="reference 1 gives probabilities"):
        audit.audit(planted.network(0), images, labels, [sure])


@pytest.mark.parametrize("name", audit.OF_INPUTS)
@pytest.mark.parametrize(("function", "said"), [(probabilities, "probabilities"), (not_finite, "not finite")])
def test_inputs_of_a_network_that_cannot_be_audited(name, function, said):
    images, _ = planted.images()
    subject = Subject(function, planted.network(0).variables)
    with pytest.raises(UserError, match=said):
        audit.inputs(subject, images[:20], images[20:], audit.OF_INPUTS[name])


def two_rows(subject, images, clean, *, key, batch_size):
    """Classes 0 and 2 have more of it than 1 and 3."""
    return images[:, 0].mean((1, 2)) + images[:, 2].mean((1, 2))


def test_inputs_are_calibrated_where_labels_alternate():
    suspects, (clean, labels) = planted.images(400, seed=1)[0], planted.images(400, seed=2)
    np.testing.assert_array_equal(labels, np.arange(400) % 4)
    detector = Detector("two rows", "their brightness", "nothing", two_rows)
    p = [audit.inputs(planted.network(0), suspects, clean, detector, key=key).p_values for key in range(5)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.08


def test_data_are_compared_within_a_class():
    """The wider a class's suspicions are, the more of it there is in the data in question."""
    images, _ = planted.images(1600)
    labels = np.concatenate(
        [np.repeat(np.arange(4), [30, 50, 120, 600]), np.repeat(np.arange(3), 200), [3] * 200]
    )
    scales, rng = np.array([0.1, 0.3, 1, 3]), np.random.default_rng(0)
    right = np.zeros_like(images)
    right[np.arange(1600), labels] = 1

    def wide(subject, images, labels, *, key, batch_size):
        suspicion = scales[labels] * rng.standard_normal(len(labels))
        return audit.DataScore(suspicion, np.zeros(4), np.zeros(len(labels), bool))

    detector, subject = Detector("wide", "noise", "nothing", wide), planted.network(0)
    p = [
        audit.data(subject, right[:800], labels[:800], detector, clean=(right[800:], labels[800:])).p_values
        for _ in range(5)
    ]
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.07
    without = audit.data(
        subject, right[:800], labels[:800], detector, clean=(right[800:1400], labels[800:1400])
    )
    assert (without.p_values[labels[:800] == 3] == 1).all()
    assert (without.p_values[labels[:800] == 2] < 0.1).any()


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
        clean=planted.images(800, seed=1),  # two hundred of each class
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
    np.testing.assert_array_equal(seen["scored"][:100], images[:100])
    place = {image.tobytes(): i for i, image in enumerate(images)}
    given, held_out = (
        [place[x.tobytes()] for x in part] for part in (seen["clean"][0], seen["scored"][100:])
    )
    assert sorted([*given, *held_out]) == list(range(100, 200))
    assert len(given) == len(held_out) == 50
    np.testing.assert_array_equal(seen["clean"][1], labels[given])
    assert set(labels[given]) == set(labels[held_out]) == set(range(4))  # though they alternate
    assert (found.p_values == 1).all()  # every one of the fifty lies above
