"""Random numbers of every step of every search, on its device and without waiting for it.

They are a function of the search's key, the number of the step and the entry alone (Philox 4x32 with ten rounds: Salmon, Moraes,
Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so neither the slots nor the other searches matter.
"""

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["noise_key", "normals", "philox"]

_WORD = 0xFFFFFFFF
_MULTIPLIERS, _WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def noise_key(seed: int, key: str, restart: int, phase: int) -> Int[Tensor, "2"]:
    """The key of one phase of a search, apart from the stream of its start."""
    digest = hashlib.sha256(f"{seed}\0{key}\0{restart}\0noise\0{phase}".encode()).digest()
    return torch.tensor([int.from_bytes(digest[first : first + 4], "big") for first in (0, 4)])


def philox(counters: Int[Tensor, "*n 4"], keys: Int[Tensor, "*n 2"]) -> Int[Tensor, "*n 4"]:
    """Four words of 32 bits, held in 64, of a counter of four and a key of two."""
    a, b, c, d = counters.unbind(-1)
    k, l = keys.unbind(-1)  # noqa: E741
    for _ in range(_ROUNDS):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # overflow leaves the low 64 bits, which are all that is needed
        a, b, c, d = (right >> 32 & _WORD) ^ b ^ k, right & _WORD, (left >> 32 & _WORD) ^ d ^ l, left & _WORD
        k, l = k + _WEYL[0] & _WORD, l + _WEYL[1] & _WORD  # noqa: E741
    return torch.stack([a, b, c, d], -1)


def normals(
    keys: Int[Tensor, "N 2"], steps: Int[Tensor, " N"], size: int, like: Tensor, use: int = 0
) -> tuple[Float[Tensor, "N {size}"], Float[Tensor, " N"]]:
    """Independent standard normal numbers of every row for its step, and one of the exponential distribution.

    Args:
        keys: Of the rows.
        steps: Where each row is.
        size: How many normal numbers.
        like: Gives the dtype; the device is that of the keys.
        use: Numbers for another use are others.

    Returns:
        By Box and Muller's transformation of uniform numbers in (0, 1).
    """
    blocks = -(-size // 4) + 1  # the last is that of the exponential number
    counters = keys.new_zeros(len(keys), blocks, 4)
    counters[..., 0] = torch.arange(blocks, device=keys.device)
    counters[..., 1], counters[..., 2] = steps[:, None], use
    words = philox(counters, keys[:, None].expand(-1, blocks, -1)).flatten(1)
    precise = torch.float32 if keys.device.type == "mps" else torch.float64
    low = 8 if precise == torch.float32 else 0
    uniform = ((words >> low).to(precise) + 0.5) / 2 ** (32 - low)
    # Functions row by row: they may round otherwise where there are more numbers.
    logarithms, half = torch.stack([-row.log() for row in uniform]), 2 * (blocks - 1)
    angles = 2 * torch.pi * uniform[:, half : 2 * half]
    cosines, sines = (torch.stack([function(row) for row in angles]) for function in (torch.cos, torch.sin))
    found = (2 * logarithms[:, :half]).sqrt().repeat(1, 2) * torch.cat([cosines, sines], 1)
    return found[:, :size].to(like.dtype), logarithms[:, -1].to(like.dtype)
