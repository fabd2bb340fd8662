"""Plants a backdoor in a network, measures it, looks for it in the input Hessian, suppresses it.

  python main.py                                                 the quickstart: real digits
  python main.py --config=configs/cifar10_stochastic.py          an experiment at the paper's scale
  python main.py --config=configs/cifar10_stochastic.py:small    the same, sized for two CPU cores
  python main.py --config=configs/sweeps/fig06.py:small          a sweep: the grid behind a figure

A key that is named on the command line holds for all runs, also where the arms of a comparison differ
in it. Results go to --workdir, one directory a run; what is done is not done again, and what was
interrupted goes on where it stopped.
"""

from pathlib import Path

from poison_jax import cli


def main(config, workdir, *, tensorboard, **of_sweeps):
    import plots
    from poison_jax import experiments, sweeps

    if config.experiment == "sweep" or of_sweeps["dry_run"]:
        sweeps.run(config, workdir, tensorboard=tensorboard, draw=plots.draw_sweep, **of_sweeps)
    else:
        experiments.run(config, workdir, tensorboard=tensorboard, draw=plots.draw)


if __name__ == "__main__":
    cli.run(main, __doc__, configs=Path(__file__).parent / "configs", default="digits_quickstart.py")
