"""`python -m poison_jax.audit RUN`: is this network poisoned? Answered by a p-value and a page."""

import argparse
import sys
from pathlib import Path

import numpy as np

from poison_jax import audit, cli, console
from poison_jax import config as config_lib
from poison_jax import references as references_lib
from poison_jax.arrays import read_npz
from poison_jax.audit import report as report_lib
from poison_jax.errors import UserError
from poison_jax.experiments import subjects
from poison_jax.runs.store import Run


def main(argv: list[str]) -> None:
    """Parses the command line, gets the references, audits, writes the report."""
    arguments = _parser().parse_args(argv)
    with cli.ready():
        run = Run(arguments.run)
        if not run.checkpoints.is_dir():
            raise UserError(f"{run.path} holds no checkpoints of a trained network: name a run's folder")
        config = config_lib.from_json(run.config(), str(run.path))
        cli.check_own_code(config, str(run.path), allowed=arguments.own_code)
        (subject,), images, labels = subjects.of_runs([run], count=arguments.num_images)
        if arguments.data:
            images, labels = _read(arguments.data)
        if arguments.null:
            found = _clean_runs(Path(arguments.null), subject.recipe, run, arguments.own_code)
            references = subjects.of_runs(found)[0] if found else []
        elif arguments.references:
            where = arguments.workdir or str(run.path.parent)
            references = references_lib.references(
                config, arguments.references, workdir=where, workers=arguments.workers
            )
        else:
            references = []
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
        console.table(
            f"{found.verdict}: {found.reason}", report_lib.HEADER, [tuple(row) for row in found.rows()]
        )
        if found.verdict == "poisoned-like":
            console.say(found.about_target())
        for file in found.write(arguments.out or run.path / "audit"):
            console.say(f"written: {file}")


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m poison_jax.audit", description=about)
    parser.add_argument("run", metavar="RUN", help="directory of a trained run")
    parser.add_argument(
        "--references", type=int, default=19, metavar="N", help="clean networks of its recipe, trained once"
    )
    parser.add_argument(
        "--null", metavar="DIR", help="a store: its clean runs of the same recipe are the references"
    )
    parser.add_argument("--data", metavar="FILE", help=".npz: images [N, H, W, C] in [0, 1] or uint8, labels")
    parser.add_argument("--num_images", type=int, default=512, help="test images to look at, at most")
    parser.add_argument(
        "--detectors",
        nargs="+",
        default=[],
        choices=audit.OTHERS,
        help="others to show beside the verdict, at the same calibration",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="rate of false alarms")
    parser.add_argument("--workers", type=int, default=1, help="processes that train references")
    parser.add_argument("--workdir", metavar="DIR", help="store of the references; default: the run's own")
    parser.add_argument(
        "--own_code",
        action="store_true",
        help="import the modules that a run's config names (module:function)",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the report; default: RUN/audit")
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


def _clean_runs(store: Path, recipe: str, subject: Run, own_code: bool) -> list[Run]:
    """The finished clean runs of a recipe in a store, the subject's own left out."""
    found = []
    for file in sorted(store.glob("*/result.json")):
        run = Run(file.parent)
        config = config_lib.from_json(run.config(), str(run.path))
        if run.path.resolve() == subject.path.resolve() or config.experiment != "train":
            continue
        if config.poison.fraction == 0 and subjects.recipe(config) == recipe:
            cli.check_own_code(config, str(run.path), allowed=own_code)
            found.append(run)
    if not found:
        raise UserError(f"{store} holds no finished clean run of this recipe: leave --null out to train some")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
