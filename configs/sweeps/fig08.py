"""Figure 8: top eigenvectors of the input Hessian without and with augmentation; cells of Figures 6 and 7.

python main.py --config=configs/sweeps/fig08.py
python main.py --config=configs/sweeps/fig08.py:small
python main.py --config=configs/sweeps/fig08.py:short
"""

from configs import common


def get_config(size=""):
    config = common.sweep("fig08", size)
    config.sweep.grids = (
        (
            ("data.augment,data.crop", (("none", "pad4"), ("crop_flip", "crop28"))),
            ("poison.fraction", common.by_size(size, (0.001, 0.005, 0.01, 0.03), (0.02, 0.1), (0.1, 0.3))),
            ("penalty.kappa", (0.0, 50.0) if size else (0.0, 1e3, 1e5)),
        ),
    )
    return config
