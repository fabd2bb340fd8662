"""The script of a Slurm array that does a sweep."""

import os
import shlex
import sys
from pathlib import Path

import ml_collections

from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.sweeps import grid


def script(config: ml_collections.ConfigDict, workdir: str, tasks: int) -> str:
    """The text of the script: every task is this command, and takes whichever cell is free.

    The folder of its logs is made, for Slurm makes none.

    Args:
        config: of experiment=sweep, checked.
        workdir: the store, on a disk that all nodes share.
        tasks: of the array; one that is taken away costs its running epoch, and is queued again.
    """
    if tasks < 1:
        raise UserError(f"--slurm = {tasks}: name the number of tasks, at least 1")
    grid.cells(config)
    logs = Path(workdir) / records.SWEEPS / config.sweep.name
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *sys.argv, "--slurm=0"]  # of a flag that is given twice the last counts
    return f"""#!/bin/bash
#SBATCH --job-name={config.sweep.name}
#SBATCH --array=1-{tasks}
#SBATCH --output={shlex.quote(str(logs))}/slurm-%A_%a.log
#SBATCH --requeue
#SBATCH --signal=TERM@120
# Add --gres=gpu:1, --time and --cpus-per-task as your cluster wants them. Submit it with sbatch.
cd {shlex.quote(os.getcwd())}
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not take it over
exec srun --ntasks=1 {shlex.join(command)}"""
