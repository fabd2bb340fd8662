"""`python -m poison_jax.export RUN --out net`: a run's network, to be opened in plain Flax or in PyTorch."""

import argparse
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import flax
import numpy as np

from poison_jax import cli, console
from poison_jax import config as config_lib
from poison_jax.errors import UserError
from poison_jax.experiments import subjects
from poison_jax.foreign import convert, files
from poison_jax.runs.store import Run
from poison_jax.subject import Subject

_MAKES = {  # kind of network -> two lines of Python that make it from `about`
    "preresnet": ("from poison_jax.models import preresnet", 'preresnet(**about["architecture"])'),
    "foreign": (
        "from poison_jax import foreign, models",
        'models.Model(foreign.architecture(about["architecture"])(len(about["classes"])))',
    ),
}


def main(argv: list[str]) -> None:
    """Parses the command line, writes the folder, prints how to open it."""
    parser = argparse.ArgumentParser(
        prog="python -m poison_jax.export", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("run", metavar="RUN", help="directory of a trained run")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write, not there yet")
    arguments = parser.parse_args(argv)
    with cli.ready():
        run, folder = Run(arguments.run), Path(arguments.out)
        if not run.checkpoints.is_dir():
            raise UserError(f"{run.path} holds no checkpoints of a trained network: name a run's folder")
        if folder.exists():
            raise UserError(f"{folder} is there already: name another folder")
        config = config_lib.from_json(run.config(), str(run.path))
        if config.model.name not in _MAKES:
            raise UserError(
                f"the network is your own code's ({config.model.name}): its checkpoint is orbax's"
            )
        (subject,), images, _ = subjects.of_runs([run], count=1)
        write(folder, subject, config.model, images.shape[1:])
        console.say(f"written: {', '.join(sorted(str(file) for file in folder.iterdir()))}")
        console.say("\nIn Flax, with safetensors installed:\n")
        console.say(flax_loader(config.model.name, folder))
        if (folder / "preresnet_torch.py").exists():
            console.say(f"\nIn PyTorch, with {folder} in PYTHONPATH:\n")
            console.say(torch_loader(folder))


def write(folder: Path, subject: Subject, model: Any, image_shape: tuple[int, int, int]) -> None:
    """Writes a network's weights and what belongs to them.

    `network.json` (architecture, mean, std, classes, image shape), `flax.safetensors` (Flax's names, joined
    by `/`), and where torch is installed `state_dict.pt`, for a PreResNet with its definition.

    Args:
        folder: to be made.
        subject: the network.
        model: the group `model` of its config.
        image_shape: `[H, W, C]` of its images.
    """
    folder.mkdir(parents=True)
    variables, classes = subject.variables, subject.classes
    sizes = {"depth": model.depth, "num_classes": len(classes), "block": model.block, "width": model.width}
    mean, std = (np.asarray(part, float).tolist() for part in subject.normalisation)
    about = {
        "architecture": model.architecture or sizes,
        "mean": mean,
        "std": std,
        "classes": classes,
        "image_shape": image_shape,
    }
    (folder / "network.json").write_text(json.dumps(about, indent=2) + "\n")
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    files.write_safetensors(
        folder / "flax.safetensors", {name: np.asarray(value) for name, value in flat.items()}
    )
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    state = {name: torch.from_numpy(array.copy()) for name, array in convert.to_torch(variables).items()}
    means = [name for name in state if name.endswith("running_mean")]  # torch counts batches beside each
    state |= {f"{name.removesuffix('running_mean')}num_batches_tracked": torch.tensor(0) for name in means}
    torch.save(state, folder / "state_dict.pt")
    if model.name == "preresnet":
        shutil.copy(Path(files.__file__).with_name("preresnet_torch.py"), folder)


def flax_loader(kind: str, folder: Path) -> str:
    """Python that opens the folder; `images [B, H, W, C]` in [0, 1] are its reader's."""
    imported, made = _MAKES[kind]
    return f"""\
import json, pathlib, flax, safetensors.numpy
{imported}
about = json.loads(pathlib.Path("{folder}/network.json").read_text())
flat = safetensors.numpy.load_file("{folder}/flax.safetensors")
variables = flax.traverse_util.unflatten_dict(flat, sep="/")
logits = {made}.apply(variables, (images - about["mean"]) / about["std"])[0]
"""


def torch_loader(folder: Path) -> str:
    """The same in PyTorch, without this library; `images [B, C, H, W]` in [0, 1]."""
    return f"""\
import json, pathlib, torch, preresnet_torch
about = json.loads(pathlib.Path("{folder}/network.json").read_text())
mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
model = preresnet_torch.PreResNet(**about["architecture"], channels=about["image_shape"][2])
model.load_state_dict(torch.load("{folder}/state_dict.pt", weights_only=True))
logits = model.eval()((images - mean) / std)
"""


if __name__ == "__main__":
    main(sys.argv[1:])
