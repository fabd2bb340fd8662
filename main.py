"""Plants a backdoor in a network, measures it, looks for it in the input Hessian, suppresses it.

  python main.py                                                 the quickstart: real digits
  python main.py --config=configs/cifar10_stochastic.py          an experiment at the paper's scale
  python main.py --config=configs/cifar10_stochastic.py:small    the same, sized for two CPU cores
  python main.py --config=configs/sweeps/fig06.py:small          a sweep: the grid behind a figure
  python main.py --config=FILE --config.penalty.kappa=100 --config.poison.fraction=0.02
                                       with any key of poison_jax/config.py overridden; naming the
                                       key in which the arms of a comparison differ runs that one

Results go to --workdir (runs/), one directory a run; what is done is not done again, and what was
interrupted goes on where it stopped.
"""

from pathlib import Path

from poison_jax import cli


def main(config, workdir, **options):
    import plots
    from poison_jax import launch

    launch.run(config, workdir, draw=plots.draw, draw_sweep=plots.draw_sweep, **options)


if __name__ == "__main__":
    cli.run(main, __doc__, configs=Path(__file__).parent / "configs", default="digits_quickstart.py")
