"""Plants a backdoor in a network, sees it in the input Hessian, suppresses it.

  python main.py                                               the quickstart
  python main.py --config=configs/cifar10_stochastic.py        the paper's scale
  python main.py --config=configs/cifar10_stochastic.py:small  two CPU cores
  python main.py --config=configs/sweeps/fig06.py:small        a figure's grid

What is done is not done again, what was interrupted goes on where it stopped.

  python -m plots --help                   figures and tables of what was run
  python -m poison_jax.report --runs runs  all of it on one HTML page
  python -m poison_jax.audit runs/RUN      is this network poisoned?
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
