"""What `accelerate launch` leaves undone where there is no GPU."""

from __future__ import annotations

import argparse
import os
import sys

import psutil

from deepstab.errors import TrainingError


def start_all() -> None:
    """Start the processes that `accelerate launch --num_processes N` was asked for, in place of
    this one.

    Without several GPUs accelerate starts one process and leaves the others to MPI.

    Raises:
        TrainingError: how many they are is not said.
    """
    environment = os.environ.keys()
    if not {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= environment:
        return
    if environment & {"WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}:
        return
    launcher = psutil.Process().parent()
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--num_processes", "--num-processes", type=int)
    parser.add_argument("--num_machines", "--num-machines", type=int, default=1)
    asked, _ = parser.parse_known_args(launcher.cmdline() if launcher else [])
    if asked.num_processes is None or asked.num_machines != 1:
        raise TrainingError(
            "accelerate started one process of several; on processors say how many by "
            "`accelerate launch --num_processes N`, or use torchrun, as for several machines"
        )
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
    command = [sys.executable, *torchrun, str(asked.num_processes), *sys.argv]
    os.execv(sys.executable, command)
