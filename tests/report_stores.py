"""Stores of runs that were never run, and what a report says of them."""

import re
import struct
import zlib

import numpy as np

from plots import report
from poison_jax import config as config_lib
from poison_jax.runs import records, store
from poison_jax.runs.store import Run
from poison_jax.sweeps.board import Board


def png(width=2, height=3):
    """A grey picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'"


def configured(**overrides):
    config = config_lib.default()
    config.data.n_train, config.train.epochs, config.model.depth = 5_000, 8, 8
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in overrides.items()})
    return config.to_dict()


def measured(config, **changes):
    """What a training run finds."""
    return {
        "clean_accuracy": 0.625,
        "asr": 0.875,
        "asr_incl_target": 0.9,
        "robust_accuracy": 0.1,
        "no_trigger_target_rate": 0.0625,
        "eigenvalues": [7.5, 0.25],
        "residuals": [1.5e-7, 2e-6],
        "most_negative_eigenvalue": -0.125,
        "overlap": [-0.5, 0.125],
        "overlap_squared": [0.25, 0.015625],
        "max_overlap_index": 0,
        "trigger_found": True,
        "found_threshold": 0.1,
        "hessian_examples": 256,
        "status": "ok",
        "convolutions": "xla",
        "wall_seconds": 75.0,
        "config": config,
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "device": "1 x cpu (cpu)",
        **changes,
    }


def begun(workdir, name, **overrides):
    """A run that has its config and nothing else."""
    config = configured(**overrides)
    return store.open_run(workdir, name, config, identity=config)


def finished(workdir, name="single", *, changes=None, **overrides):
    """A training run with all that its pictures need."""
    run = begun(workdir, name, **overrides)
    rng = np.random.default_rng(0)
    for epoch in (1, 2):
        row = {"loss": 1.0, "penalty": 0.0, "clean_accuracy": 0.5, "asr": 0.5, "no_trigger_target_rate": 0.1}
        run.append_metrics({"epoch": epoch, **row})
    run.save_arrays(
        "spectrum",
        values=np.array([7.5, 0.25]),
        residuals=np.array([1.5e-7, 2e-6]),
        overlap=np.array([-0.5, 0.125]),
        spectral_peak_frequency=np.array([[1, 0], [0, 1]]),
        spectral_prominence=np.array([3.0, 2.0]),
        vectors=rng.standard_normal((2, 48)),
        shape=np.array([4, 4, 3]),
    )
    images = rng.integers(0, 255, (3, 4, 4, 3), dtype=np.uint8)
    run.save_arrays(
        "attack",
        mask=np.eye(4, dtype=bool),
        class_names=np.array(["cat", "dog"]),
        labels=np.array([0, 1, 0]),
        clean=images,
        triggered=images,
        clean_prediction=np.array([0, 1, 0]),
        triggered_prediction=np.array([1, 1, 1]),
    )
    run.finish(measured(run.config(), **(changes or {})))
    return run


def swept(workdir, name="grid", kappas=(0.0, 10.0, 100.0, 1000.0)):
    """A sweep: its first cell done, its second a failed training, its third failed, the others waiting."""
    cells = [{"run": f"cell-{kappa:g}", "overrides": {"penalty.kappa": kappa}} for kappa in kappas]
    records.write_sweep(workdir, records.Sweep(name, configured(), cells))
    for kappa, status in zip(
        kappas[:2], ("ok", "failed training: clean accuracy is near chance"), strict=True
    ):
        run = Run(workdir / f"cell-{kappa:g}")
        done = finished(
            workdir, "cell", penalty__kappa=kappa, changes={"status": status, "asr": 0.5 - kappa / 100}
        )
        done.path.rename(run.path)
    board = Board(workdir, name)
    board.fail(f"cell-{kappas[2]:g}", "the disk was on fire")
    return board


def drawn(found, name, out):
    """Stands for `plots.draw_records`."""
    cells = len(found)
    drawn = [out / f"{name}.png", out / f"{name}.pdf", out / f"{name}.md"]
    drawn[0].write_bytes(png())
    drawn[1].write_bytes(b"%PDF")
    drawn[2].write_text(f"**Table.** {cells} cells\n\n| a | b |\n| :-- | --: |\n| {HOSTILE} | 2 |\n")
    return drawn


def written(runs, tmp_path):
    out = tmp_path / "report.html"
    report.main(["--runs", str(runs), "--out", str(out)])
    return out.read_text("utf-8")


def rows(text, section):
    """The rows of the sortable table of a section, as texts."""
    body = text.partition(f'<section id="{section}">')[2].partition('<table class="sortable">')[2]
    found = body.partition("</table>")[0].split("<tr>")[1:]
    texts = (re.sub(r"\s*<[^>]+>\s*", "|", row) for row in found)
    return [re.sub(r"\|+", "|", text).strip("|").split("|") for text in texts]


def everything(folder):
    return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(folder.rglob("*")) if f.is_file()}


def hostile_store(runs):
    """A store all of whose texts try to be markup."""
    board = swept(runs)
    board.fail("cell-100", HOSTILE)
    finished(runs, changes={"status": HOSTILE, "device": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    run = finished(runs, seed=5)
    run.path.rename(runs / HOSTILE.replace("/", ""))
    (runs / HOSTILE.replace("/", "") / f"{HOSTILE.replace('/', '')}.png").write_bytes(png())
    linear = begun(runs, "linear", experiment="mnist_linear", data__name=HOSTILE)
    linear.finish({HOSTILE: HOSTILE, "rows": [{HOSTILE: HOSTILE}], "config": linear.config()})
    return runs
