"""`python -m poison_jax.audit RUN`: is this network poisoned? Answered by a p-value and a page."""

import argparse
import ast
import contextlib
import dataclasses
import sys
from pathlib import Path

import ml_collections
import numpy as np

from poison_jax import audit, cli, console, data, foreign, metrics
from poison_jax import config as config_lib
from poison_jax import references as references_lib
from poison_jax.arrays import read_npz
from poison_jax.audit import report as report_lib
from poison_jax.audit.checks import checked_logits
from poison_jax.errors import UserError
from poison_jax.experiments import subjects
from poison_jax.runs.store import Run
from poison_jax.subject import Subject


def main(argv: list[str]) -> None:
    """Parses the command line, gets the references, audits, writes the report."""
    arguments = _parser().parse_args(argv)
    with cli.ready():
        if bool(arguments.run) == bool(arguments.model):
            raise UserError("name a run's folder, or a stranger's file of weights with --model")
        least = audit.needed(arguments.alpha)
        if not arguments.null and 0 < arguments.references < least:
            raise UserError(
                f"--alpha {arguments.alpha:g} takes {least} references: give --references {least}, or 0 for "
                "scores without p"
            )
        subject, images, labels, references, remark = (_of_run if arguments.run else _of_model)(arguments)
        with console.progress("  auditing", 1 + len(references)) as advance:
            found = audit.audit(
                subject,
                images,
                labels,
                references,
                alpha=arguments.alpha,
                detectors=[audit.OTHERS[name] for name in arguments.detectors],
                on_model=advance,
            )
        found = found._replace(reason=f"{found.reason}{remark}")
        console.table(
            f"{found.verdict}: {found.reason}", report_lib.HEADER, [tuple(row) for row in found.rows()]
        )
        if found.verdict == "poisoned-like":
            console.say(found.about_target())
        for file in found.write(arguments.out or Path(arguments.run or ".") / "audit"):
            console.say(f"written: {file}")


Audited = tuple[Subject, np.ndarray, np.ndarray, list[Subject], str]


def _of_run(arguments: argparse.Namespace) -> Audited:
    """The network of a run, images and labels, references; nothing to remark."""
    run = Run(arguments.run)
    if not run.checkpoints.is_dir():
        raise UserError(f"{run.path} holds no checkpoints of a trained network: name a run's folder")
    config = config_lib.from_json(run.config(), str(run.path))
    cli.check_own_code(config, str(run.path), allowed=arguments.own_code)
    if arguments.null:
        references_lib.check_data(config.data.name)
    elif arguments.references:
        references_lib.sweep_of(config, arguments.references)  # refused here, before anything is computed
    (subject,), images, labels = subjects.of_runs([run], count=arguments.num_images)
    if arguments.data:
        images, labels = _read(arguments.data)
    if arguments.null:
        found = _clean_runs(Path(arguments.null), config, arguments.own_code)
        return subject, images, labels, subjects.of_runs(found)[0], ""
    images, labels, logits = audit.checked_input(subject, images, labels)
    if not arguments.references or not _can_be_judged(logits, labels):
        return subject, images, labels, [], ""
    where = arguments.workdir or str(run.path.parent)
    return subject, images, labels, _references(config, arguments, where), ""


def _of_model(arguments: argparse.Namespace) -> Audited:
    """A stranger's network, test images, labels, references of its architecture, how they were trained."""
    if not arguments.architecture or not arguments.data or arguments.null:
        raise UserError("--model takes --architecture and --data, and trains its own references, no --null")
    if arguments.architecture.endswith(".txt"):  # its text, so that a run knows all of it
        arguments.architecture = foreign.read_description(arguments.architecture)
    test_set = data.load(arguments.data, "test")
    images, labels = test_set.images[: arguments.num_images], test_set.labels[: arguments.num_images]
    images, channels = images / np.float32(255), images.shape[-1]
    normalisation = None  # the file's own, if it says one
    if arguments.normalise:
        normalisation = _normalisation(arguments.normalise, channels, test_set.num_classes)
    subject = foreign.load(arguments.model, arguments.architecture, normalisation=normalisation)
    logits = checked_logits(subject, images)
    if logits.shape[1] != test_set.num_classes:
        raise UserError(
            f"{arguments.model} tells {logits.shape[1]} classes apart, {arguments.data} has "
            f"{test_set.num_classes}: give images of the data that it was trained for"
        )
    subject = dataclasses.replace(subject, classes=test_set.class_names)
    config = _recipe(subject.normalisation or (0.0, 1.0), arguments)
    if arguments.references:
        references_lib.sweep_of(config, arguments.references)  # refused here, before anything is computed
    if not arguments.references or not _can_be_judged(logits, labels):
        return subject, images, labels, [], ""
    references = _references(config, arguments, arguments.workdir or "runs")
    accuracies = [np.mean(reference.logits(images).argmax(-1) == labels) for reference in references]
    about = config.train
    remark = (
        f"; the references were trained here, {about.epochs} epochs of {config.data.n_train or 'all'} "
        f"images, learning rate {about.learning_rate:g}, weight decay {about.weight_decay:g}, accuracies "
        f"{min(accuracies):.1%} to {max(accuracies):.1%}: p holds for networks that were trained alike"
    )
    return subject, images, labels, references, remark


def _can_be_judged(logits: np.ndarray, labels: np.ndarray) -> bool:
    """Whether references could add anything: not to a network that is no better than chance."""
    return metrics.beats_chance(float(np.mean(logits.argmax(-1) == labels)), labels)


def _references(
    config: ml_collections.ConfigDict, arguments: argparse.Namespace, where: str
) -> list[Subject]:
    workers = arguments.workers
    return references_lib.references(config, arguments.references, workdir=where, workers=workers)


def _recipe(normalisation: tuple, arguments: argparse.Namespace) -> ml_collections.ConfigDict:
    """The config of a stranger's references; `--recipe` changes keys of it."""
    config = config_lib.default()
    config.experiment, config.name = "train", "reference"
    config.data.name, config.data.normalise = arguments.data, _text(normalisation)
    config.model.name, config.model.architecture = "foreign", arguments.architecture
    config.train.epochs, config.train.learning_rate = 20, 0.01  # as BackdoorBench; it takes 100
    config.poison.fraction, config.poison.margin = 0.0, 0
    for item in arguments.recipe:
        key, equals, value = item.partition("=")
        known = config_lib.flatten(config)
        if not equals or key not in known:
            raise UserError(f"--recipe {item}: write KEY=VALUE, as train.epochs=20; main.py --help=config")
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"--recipe {item}: {error}") from None
    config_lib.check(config)
    return config


def _normalisation(text: str, channels: int, num_classes: int) -> tuple:
    """What `--normalise` says: `none`, `backdoorbench`, a data set's name, MEAN/STD."""
    if text == "none":
        return 0.0, 1.0
    if text == "backdoorbench":
        known = {(1, 10): "mnist", (3, 10): "cifar10", (3, 43): "gtsrb"}
        dataset = known.get((channels, num_classes), f"{num_classes} classes")
        return foreign.normalisation_of(dataset) or (0.0, 1.0)
    if text in data.NAMES:
        return data.normalisation(text, np.zeros((0, 1, 1, channels), np.uint8))
    return data.stated_normalisation(text, channels)


def _text(normalisation: tuple) -> str:
    """Mean and standard deviation as `data.normalise` has them."""
    return "/".join(
        ",".join(f"{float(number):.9g}" for number in np.atleast_1d(part)) for part in normalisation
    )


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m poison_jax.audit", description=about)
    parser.add_argument("run", nargs="?", metavar="RUN", help="directory of a trained run")
    parser.add_argument(
        "--model", metavar="FILE", help="or a stranger's weights: .pt, .pth, safetensors, .npz"
    )
    parser.add_argument(
        "--architecture", metavar="A", help=f"of --model: {', '.join(foreign.NAMES)}, or a file"
    )
    parser.add_argument(
        "--normalise",
        metavar="N",
        help="of --model: none, backdoorbench, a data set's name or MEAN/STD; default: the file's, or none",
    )
    parser.add_argument(
        "--recipe",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of the references of --model: config keys, as train.epochs=5 data.n_train=10000",
    )
    parser.add_argument(
        "--references",
        type=int,
        default=19,
        metavar="N",
        help="networks of its recipe without its attack, trained once; on its data, which must be clean "
        "(%(default)s)",
    )
    parser.add_argument(
        "--null",
        metavar="DIR",
        help="a store: its clean runs of the same recipe are the references, one of each seed",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help=".npz: images [N, H, W, C] in [0, 1] or uint8, labels; of --model: a data set to train on, too",
    )
    parser.add_argument(
        "--num_images", type=int, default=512, help="test images to look at, at most (%(default)s)"
    )
    parser.add_argument(
        "--detectors",
        nargs="+",
        default=[],
        choices=audit.OTHERS,
        help="others to show beside the verdict, at the same calibration",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="rate of false alarms (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that train references (%(default)s)"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="store of the references; default: the run's own; with --model: runs"
    )
    parser.add_argument(
        "--own_code",
        action="store_true",
        help="import the modules that a run's config names (module:function)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the report; default: audit, in RUN if there is one"
    )
    return parser


def _read(file: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an `.npz` file; uint8 pixels are divided by 255."""
    try:
        arrays = read_npz(file, most=2**32)
    except Exception as error:  # NumPy and zipfile raise half a dozen unrelated types
        raise UserError(f"{file} cannot be read ({error}): give an .npz file of plain arrays") from None
    if not {"images", "labels"} <= arrays.keys():
        raise UserError(f"{file} holds {', '.join(arrays)}: it must hold images and labels")
    images = arrays["images"]
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images, arrays["labels"]


def _clean_runs(store: Path, subject: ml_collections.ConfigDict, own_code: bool) -> list[Run]:
    """The finished clean runs of the subject's recipe in a store, the subject's own network left out.

    One of each seed: whatever the target or trigger of an attack on no image, it is the same network.
    """
    found: dict[int, Run] = {}
    for file in sorted(store.glob("*/result.json")):
        run = Run(file.parent)
        config = config_lib.from_json(run.config(), str(run.path))
        own = _is_clean(subject) and config.seed == subject.seed
        if config.experiment != "train" or not _is_clean(config) or own:
            continue
        if subjects.recipe(config) == subjects.recipe(subject):
            cli.check_own_code(config, str(run.path), allowed=own_code)
            found.setdefault(config.seed, run)
    if not found:
        raise UserError(f"{store} holds no finished clean run of this recipe: leave --null out to train some")
    return list(found.values())


def _is_clean(config: ml_collections.ConfigDict) -> bool:
    return config.poison.fraction == config.poison.hide == 0


if __name__ == "__main__":
    main(sys.argv[1:])
