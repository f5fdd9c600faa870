"""Which of several processes this is, from what started it: torchrun, SLURM, or Lightning itself."""

import os

__all__ = ["is_started_from_outside", "leads", "local_processes"]


def leads() -> bool:
    """Whether this process is the first of its run, or the only one; known before the processes have met."""
    names = ["RANK"] if "RANK" in os.environ else ["NODE_RANK", "LOCAL_RANK" if "LOCAL_RANK" in os.environ else "SLURM_PROCID"]
    return all(os.environ.get(name, "0") == "0" for name in names)


def is_started_from_outside() -> bool:
    """Whether torchrun or SLURM has started all processes of the run; else Lightning starts the others, by the same command."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def local_processes() -> tuple[int, int] | None:
    """How many processes torchrun has started on this machine, and on how many machines; None if it has not started this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return local, world // local
