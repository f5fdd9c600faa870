r"""The decoder of a latent diffusion model, as diffusers keeps it: ``AutoencoderKL`` or ``AutoencoderTiny``.

.. math:: G(\ell) = (f(\ell\, \sigma / s + \mu) + 1) / 2

with f the decoder and s, :math:`\mu` and :math:`\sigma` numbers of its configuration: ``scaling_factor``; ``latents_mean``, or
else ``shift_factor``, or else 0; ``latents_std``, or else 1, for each channel. That is how the pipelines of diffusers 0.42
decode (Stable Diffusion: s alone; Stable Diffusion 3 and Flux: s and the shift; SDXL: mean and standard deviation if any). So
:math:`\ell` lives where the diffusion model works, in units in which the latents of its training images have a variance of about
1 (Rombach et al., CVPR 2022, arXiv:2112.10752, sections 4.3.2 and D.1).

``AutoencoderTiny`` (TAESD, a distilled decoder) takes the same latents with s = 1. Its network works in [0, 1], but ``decode``
turns that into [-1, 1] as the other's, unclamped; it begins with :math:`3 \tanh(\cdot / 3)`, so latents far beyond 3 look alike.

Only the decoder is searched, no diffusion model: nothing asks the entries of a latent to agree with one another, so a normal draw
is not what the decoder was trained on. A latent has many entries (one for 12 numbers of the image in Stable Diffusion 3 and Flux,
for 48 in Stable Diffusion): the measurement leaves more of them open than in a GAN, and only the decoder fills them in.

Weights: a folder you bring, with ``config.json`` and safetensors; no code in it is run and nothing is fetched. No published one
has been at hand: the tests build tiny networks of both classes. A CPU decodes row by row: the same bits alone and in a batch.
Where the configuration says ``force_upcast``, float16 may overflow: take 32 bits or bf16.

Latent blocks: ``latent`` of shape (C, side, side), standard normal. Needs the extra ``diffusers``.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal

__all__ = ["DiffusersDecoder", "load"]

_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_ENCODER = ("encoder", "quant_conv")
_LOGGERS = ("diffusers.configuration_utils", "diffusers.models.modeling_utils")


class DiffusersDecoder(Generator):
    """The decoder of an autoencoder of diffusers, frozen.

    Args:
        network: An ``AutoencoderKL`` or ``AutoencoderTiny``. It is put in evaluation mode, frozen, and its tiling, which changes
            images, is switched off, in place. Its encoder is not used and may be None.
        side: Height and width of a latent; the image's are larger by the factor of the network (8 in Stable Diffusion).

    Raises:
        ImportError: diffusers is not installed.
        TypeError: The network is of another class.
        ValueError: The side is no positive number, or a statistic is not one number, or one for each channel.
    """

    network: Any
    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        known = _classes()
        if not isinstance(network, tuple(known.values())):
            raise TypeError(
                f"DiffusersDecoder: expected {' or '.join(known)}, got {type(network).__name__}; for other networks take"
                " generators.module"
            )
        if side < 1:
            raise ValueError(f"DiffusersDecoder: expected a side of at least 1, got {side}; give height and width of a latent")
        self.network = network
        config: Any = network.config
        channels = config.latent_channels
        self.blocks = (LatentBlock("latent", (channels, side, side), Normal()),)
        self.image_shape = (config.out_channels, *2 * (side * _factor(config),))
        shift = config.get("latents_mean")
        shift = config.get("shift_factor") if shift is None else shift
        scale = _statistic("latents_std", config.get("latents_std"), 1.0, channels)
        scale = scale / _statistic("scaling_factor", config.scaling_factor, 1.0, 1)
        self.register_buffer("scale", scale.to(self.network.dtype))
        self.register_buffer("shift", _statistic("latents_mean or shift_factor", shift, 0.0, channels).to(self.network.dtype))
        self.network.disable_tiling()
        self.eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of ``latent``."""
        z = latents["latent"] * self.scale + self.shift
        rows = z.split(1) if z.device.type == "cpu" else [z]
        return (torch.cat([self.network.decode(row, return_dict=False)[0] for row in rows]) + 1) / 2


def load(path: str | Path, side: int) -> DiffusersDecoder:
    """Read the decoder of an autoencoder that ``save_pretrained`` wrote, on the CPU in float32. Nothing is fetched or run.

    Args:
        path: A folder with ``config.json`` and ``diffusion_pytorch_model.safetensors``; the folder of a pipeline, which has them
            in ``vae``; or a ``.safetensors`` file of any name with ``config.json`` beside it. The encoder may be missing.
        side: Height and width of a latent.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ImportError: diffusers is not installed.
        ValueError: The configuration is of another class, or the files cannot be read or are not those of the network.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    if not path.is_file() and not (folder / _CONFIG).is_file() and (folder / "vae" / _CONFIG).is_file():
        folder = folder / "vae"
    weights = path if path.is_file() else folder / _WEIGHTS
    for file in (folder / _CONFIG, weights):
        if not file.is_file():
            raise FileNotFoundError(
                f"{path}: expected a local folder with {_CONFIG} and {_WEIGHTS}, or a .safetensors file beside its {_CONFIG}, got"
                f" no file {file}; names of the hub are not fetched here: download both files with `hf download OWNER/NAME"
                f" --include 'vae/*' --local-dir FOLDER` and give FOLDER/vae"
            )
    if weights.suffix != ".safetensors":
        raise ValueError(f"{weights}: expected a .safetensors file, got {weights.suffix!r}; other formats may hold programs")
    known = _classes()
    name = _class_name(folder / _CONFIG)
    if name not in known:
        raise ValueError(
            f"{folder / _CONFIG}: expected the _class_name {' or '.join(known)}, got {name!r}; give the folder of one"
        )
    network, told = _read(known[name], folder / _CONFIG, weights)
    missing = [key for key in told["missing_keys"] if key.split(".")[0] not in _ENCODER]
    if missing or told["unexpected_keys"]:
        raise ValueError(
            f"{weights}: expected the tensors of the {name} that {_CONFIG} describes, got {len(missing)} missing"
            f" {missing[:5]} and {len(told['unexpected_keys'])} unexpected {sorted(told['unexpected_keys'])[:5]};"
            " take both files from one place"
        )
    for part in _ENCODER:
        if getattr(network, part, None) is not None:
            setattr(network, part, None)
    return DiffusersDecoder(network.float(), side)


def _classes() -> dict[str, type[nn.Module]]:
    """The networks known, by name; diffusers is imported here."""
    try:
        from diffusers.models import AutoencoderKL, AutoencoderTiny
    except ImportError as error:
        raise ImportError(
            f"generators.diffusers_decoder: expected the package diffusers, got none ({error}); install pulse-latent[diffusers]"
        ) from error
    return {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def _class_name(config: Path) -> object:
    try:
        content = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{config}: expected JSON, got what cannot be read ({error}); fetch it again") from error
    return content.get("_class_name") if isinstance(content, dict) else None


def _read(kind: Any, config: Path, weights: Path) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401 - diffusers has no types
    """The network, and what its loader says of the names of the tensors."""
    with tempfile.TemporaryDirectory() as folder:  # the loader knows files by their name alone, and may not look at others
        shutil.copyfile(config, Path(folder) / _CONFIG)
        try:
            (Path(folder) / _WEIGHTS).symlink_to(weights.resolve())
        except OSError:  # systems that do not let everybody make links
            shutil.copyfile(weights, Path(folder) / _WEIGHTS)
        try:
            with _quiet():
                return kind.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
                )
        except Exception as error:  # damaged and foreign files make it fail in every way there is
            why = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{weights}: expected the weights of the {kind.__name__} that {config} describes, got what cannot be read"
                f" ({why}); fetch both files again"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the loader's warnings of settings and tensors that it leaves out: those that matter are errors here."""

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(passes)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(passes)


def _factor(config: Any) -> int:  # noqa: ANN401 - diffusers has no types
    """How many pixels a side one entry of a latent becomes: each block but the last enlarges."""
    if "decoder_block_out_channels" in config:
        return config.upsampling_scaling_factor ** (len(config.decoder_block_out_channels) - 1)
    return 2 ** (len(config.block_out_channels) - 1)


def _statistic(name: str, value: Any, default: float, channels: int) -> Tensor:  # noqa: ANN401 - from a file
    """A number, or one for each channel, as (1, 1, 1) or (C, 1, 1); float64."""
    wanted = "1 number" if channels == 1 else f"1 or {channels} numbers"
    try:
        numbers = torch.as_tensor(default if value is None else value, dtype=torch.float64).reshape(-1, 1, 1)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.empty(0)
    if len(numbers) not in (1, channels):
        raise ValueError(f"DiffusersDecoder: expected {name} to be {wanted}, got {value!r}; correct the configuration")
    return numbers
