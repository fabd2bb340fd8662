"""Cost estimates before anything runs: model FLOPs (see `flops`), and hours at the rate of a device."""

import statistics
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from poison_jax import console
from poison_jax.errors import UserError
from poison_jax.experiments.setup import Setup
from poison_jax.runs import provenance, store
from poison_jax.runs.files import Json
from poison_jax.sweeps import flops, grid, stored

ROWS = 200  # of the table, at most


class Cost(NamedTuple):
    """Model FLOPs of the parts of a training run."""

    training: float
    evaluation: float  # of the test images, without and with the trigger, after every epoch
    hessian: float

    @property
    def total(self) -> float:
        """Of all parts; what `analysis.*` looks at besides is not counted."""
        return sum(self)


def of_run(setup: Setup) -> Cost:
    """The FLOPs of a run."""
    c = setup.config
    forward, first = _forward(setup)
    if c.penalty.kappa > 0:
        image = flops.penalised_step(forward, first)
    else:
        image = flops.plain_step(forward, first)
        image += c.penalty.steps * 2 * forward if c.penalty.epsilon > 0 else 0
    if c.poison.hide > 0:  # its own term is an input gradient, differentiated as the penalty's is
        image += flops.penalised_step(forward, first)
    visits = c.train.epochs * setup.steps_per_epoch * c.train.batch_size
    examples = min(c.spectrum.num_examples, len(setup.train_set.labels))
    products = c.spectrum.num_iters + c.spectrum.k + 1
    return Cost(
        visits * image,
        c.train.epochs * 2 * len(setup.test_set.labels) * forward,
        examples * flops.hessian_products(forward, products),
    )


def show(cells: list[grid.Cell], workdir: str, results: str = "") -> None:
    """Prints the cells of a sweep with their FLOPs and hours, without doing any.

    Of cells that look at one network, the first that is to be done has the cost of its training. Hours are at
    the rate that finished cells had on this kind of device; if there are none, at that of this network's
    forward pass, measured.

    Args:
        cells: of a sweep, or of a training.
        workdir: the store.
        results: folder of JSON lines, of cells that are done elsewhere.
    """
    kinds = [(kind, kind[0].config) for kind in grid.kinds(cells)]
    if any(config.experiment != "train" for _, config in kinds):
        raise UserError("--dry_run counts what training costs: leave it out for this experiment")
    if own := [config.model.name for _, config in kinds if config.model.name != "preresnet"]:
        raise UserError(f"--dry_run counts what PreResNets cost, not {own[0]}: leave it out")
    costs: dict[str, Cost] = {}
    for kind, config in kinds:
        costs |= dict.fromkeys((cell.key for cell in kind), of_run(Setup(config)))
    found = (
        {key: record.result for key, record in stored.matching(cells, Path(results)).items()}
        if results
        else {}
    )
    trained, left = set(), {}
    for cell in cells:
        run = store.Run(Path(workdir) / cell.run)
        if (result := run.result(cell.view)) is not None:
            found[cell.key] = result
        elif cell.key not in found:
            known = run.done or cell.run in trained
            left[cell.key] = costs[cell.key].hessian if known else costs[cell.key].total
            trained.add(cell.run)
    rate, source = _rate(cells, costs, found)
    rows = []
    for cell in cells[:ROWS]:
        flop = left.get(cell.key, costs[cell.key].total)
        state = "to do" if cell.key in left else "done"
        rows.append((str(cell), state, f"{flop / 1e12:.3g}", f"{flop / rate / 3600:.3g}"))
    console.table(f"{len(cells)} cells", ["cell", "state", "TFLOP", "hours"], rows)
    if len(cells) > ROWS:
        console.say(f"and {len(cells) - ROWS} more")
    total = sum(left.values())
    console.say(
        f"to do: {len(left)} cells, {total / 1e12:.4g} TFLOP, "
        f"{total / rate / 3600:.3g} hours on one {provenance.device()} at {rate / 1e9:.3g} GFLOP/s ({source})"
    )


def _rate(cells: list[grid.Cell], costs: dict[str, Cost], found: dict[str, Json]) -> tuple[float, str]:
    """FLOPs a second, and where that comes from."""
    rates = [
        costs[key].total / result["wall_seconds"]
        for key, result in found.items()
        if result["device"] == provenance.device()
    ]
    if rates:
        return statistics.median(rates), f"median of {len(rates)} finished cells"
    return _forward_rate(Setup(cells[0].config)), "measured on the network's forward pass"


def _forward_rate(setup: Setup) -> float:
    variables = setup.model.init(setup.key, setup.input_shape)
    images = np.zeros((setup.config.train.batch_size, *setup.input_shape), np.float32)
    apply = jax.jit(setup.model.apply)
    jax.block_until_ready(apply(variables, images))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(apply(variables, images))
        seconds.append(time.perf_counter() - began)
    return len(images) * _forward(setup)[0] / statistics.median(seconds)


def _forward(setup: Setup) -> tuple[int, int]:
    """FLOPs of one image's forward pass, and of the first convolution in it."""
    model = setup.config.model
    classes, shape = setup.train_set.num_classes, setup.input_shape
    return flops.preresnet_forward(model.depth, classes, shape, block=model.block, width=model.width)
