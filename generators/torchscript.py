"""Networks in TorchScript archives, for ``generators.module``.

``load`` returns a network, not a generator: the archive does not say what its latents and pixels mean. In a configuration::

    _target_: generators.module.ModuleGenerator
    network: {_target_: generators.torchscript.load, path: decoder.ts}
    latent_shape: [128]

**An archive is a program.** Unlike a file of tensors it carries executable graphs, which run when images are made; it can exhaust
time and memory, and its operators can reach files. Load only archives whose origin you trust.

Graphs keep the type and device of the constants in them: an archive made with ``torch.jit.freeze``, or traced with fixed sizes,
may not move to another device, dtype or batch size; prefer ``torch.jit.script``. PyTorch deprecates TorchScript in favour of
``torch.export``; ``torch.jit.load`` still reads archives in torch 2.13.
"""

import warnings
from pathlib import Path

import torch
from torch import nn

__all__ = ["load"]


def load(path: str | Path) -> nn.Module:
    """Read the network of an archive that ``torch.jit.save`` wrote, on the CPU. The archive must be trusted: it is a program.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a TorchScript archive, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a TorchScript archive, got no such file; check the path")
    with warnings.catch_warnings():
        # Reading old archives is what this file is for; the advice to export anew is for whoever made them.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
        try:
            return torch.jit.load(path, map_location="cpu")
        except (RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{path}: expected a TorchScript archive, got a file that cannot be read ({why}); fetch it again, or read"
                " files of tensors with generators.module.load"
            ) from error
