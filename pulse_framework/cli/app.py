"""All commands in one place."""

import typer

from pulse_framework.cli.align import align
from pulse_framework.cli.bench import bench
from pulse_framework.cli.catalogue import list_choices, weights
from pulse_framework.cli.check import degradations
from pulse_framework.cli.degrade import degrade
from pulse_framework.cli.demo import demo
from pulse_framework.cli.doctor import doctor
from pulse_framework.cli.encoder import encoder
from pulse_framework.cli.jobs import run, upsample
from pulse_framework.cli.latents import render, sample
from pulse_framework.cli.log import log
from pulse_framework.cli.photos import restore

__all__ = ["app"]

app = typer.Typer(
    name="pulse",
    help="Restore images by searching the latent space of a pretrained generator.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command()(demo)
app.command()(upsample)
app.command()(align)
app.command()(restore)
app.command()(degrade)
app.command()(run)
app.command()(sample)
app.command()(render)
app.command("list")(list_choices)
app.command()(bench)
app.command()(doctor)
app.add_typer(weights, name="weights")
app.add_typer(degradations, name="degradations")
app.add_typer(encoder, name="encoder")
app.add_typer(log, name="log")
