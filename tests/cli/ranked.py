"""Runs a command in several processes, as torchrun starts them; a program of ``test_ranks``, not a test.

Usage: ranked.py WORLD ARGUMENT... The processes are forked from one that has imported everything. Prints their exit statuses.
"""

import os
import socket
import sys

import pytorch_lightning  # noqa: F401 - imported once for all

from pulse_framework.cli.app import app
from pulse_framework.cli.compose import load


def child(rank: int, world: int, port: int, arguments: list[str]) -> int:
    """Process number of one rank."""
    number = os.fork()
    if number == 0:
        known = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
        os.environ.update({name: str(value) for name, value in known.items()})
        status = 1
        try:
            app(arguments)
        except SystemExit as over:
            status = over.code if isinstance(over.code, int) else int(over.code is not None)
        finally:
            sys.stdout.flush()
            os._exit(status)
    return number


def main() -> None:
    """Start them, and report."""
    world, arguments = int(sys.argv[1]), sys.argv[2:]
    load()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    numbers = [child(rank, world, port, arguments) for rank in range(world)]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers]
    sys.stdout.write(" ".join(map(str, statuses)) + "\n")


if __name__ == "__main__":
    main()
