"""What the contract suites share: seeded tensors, exact comparison, and proof that a call left no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["close", "equal", "left_alone", "rng", "uniform"]


def rng(seed: int = 0) -> torch.Generator:
    """A fresh random stream."""
    return torch.Generator().manual_seed(seed)


def uniform(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers in [0, 1), the same ones for the same seed."""
    return torch.rand(shape, generator=rng(seed), dtype=torch.float64).to(dtype)


def close(got: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    """Refuse a difference larger than ``tolerance``, relative to the largest entry expected (and at least 1)."""
    assert got.shape == expected.shape, f"{what}: expected shape {tuple(expected.shape)}, got {tuple(got.shape)}"
    assert bool(got.isfinite().all()), f"{what}: expected finite numbers"
    got, expected = got.detach(), expected.detach()
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    error = float((got.double() - expected.double()).abs().max()) / scale if expected.numel() else 0.0
    assert error <= tolerance, f"{what}: expected a relative difference of at most {tolerance:.1e}, got {error:.1e}"


def equal(got: Tensor, expected: Tensor, what: str) -> None:
    """Refuse any difference at all, in shape, dtype or bits; NaN equals NaN."""
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{what}: {text}")


@contextmanager
def left_alone(module: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Refuse that the body alters the module, the inputs, a ``.grad`` or the global random stream."""

    def look() -> dict[str, Tensor]:
        seen = {f"input {number}": value for number, value in enumerate(inputs)}
        seen |= {f"weight {name}": value for name, value in module.state_dict().items()}
        seen |= {f"gradient of {name}": value.grad for name, value in module.named_parameters() if value.grad is not None}
        seen |= {f"training mode of {name}": torch.tensor(part.training) for name, part in module.named_modules()}
        seen |= {"global random stream": torch.get_rng_state()}
        return {name: value.detach().clone() for name, value in seen.items()}

    before, plain = look(), _plain(module)
    yield
    after = look()
    assert before.keys() == after.keys(), f"expected nothing new, got {sorted(before.keys() ^ after.keys())}"
    for name, value in before.items():
        equal(after[name], value, name)
    assert plain == _plain(module), f"public attributes: expected {plain}, got {_plain(module)}"


def _plain(module: nn.Module) -> dict[str, object]:
    """Public attributes that are plain values."""
    plain = (bool, int, float, str, tuple, type(None))
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and isinstance(value, plain)}
