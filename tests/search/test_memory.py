"""Out of memory: slots halve, and every answer is that of a machine with enough; by injection."""

import logging

import pytest
import torch

from pulse_framework.priors import SpherePrior
from pulse_framework.search import Adam, Engine, L2Consistency, Objective, Phase, Search, StopRule
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import ConvToy, PoolToy

PHASE = Phase(
    prior=SpherePrior(radius="sqrt_dim"),
    objective=Objective({"data": L2Consistency()}),
    optimiser=Adam(rate=0.1),
    stop=StopRule(steps=12, target_db=24.0),
)
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
}


class Narrow(ConvToy):
    """Has room for ``most`` images at once, from its ``after``-th image with gradients on."""

    def __init__(self, most, after=0, error=ERRORS["cuda"]):
        super().__init__()
        self.most, self.after, self.error, self.calls = most, after, error, 0

    def synthesize(self, latents):
        if latents["z"].requires_grad:
            self.calls += 1
            if self.calls > self.after and len(latents["z"]) > self.most:
                raise self.error
        return super().synthesize(latents)


def searches(count=7):
    return [Search(str(k), torch.rand(3, 4, 4, generator=rng(k)) * 0.2 + 0.4, index=k) for k in range(count)]


def answers(generator, slots=8, **options):
    engine = Engine(generator, PoolToy(4), [PHASE, PHASE], slots=slots, **options)
    return sorted(engine.run(searches()), key=lambda result: result.index)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize(("most", "after"), [(1, 0), (2, 0), (4, 0), (2, 9), (1, 15), (4, 20)])
def test_slots_halve_and_no_bit_changes(most, after, error, caplog):
    enough = answers(ConvToy())
    with caplog.at_level(logging.WARNING):
        short = answers(Narrow(most, after, error))
    assert len({result.steps for result in enough}) > 1
    for got, expected in zip(short, enough, strict=True):
        assert torch.equal(got.trace, expected.trace)
        assert torch.equal(got.image, expected.image)
        assert (got.steps, got.reason) == (expected.steps, expected.reason)
    assert f"next time: search.slots={max(1, most)}" in caplog.text


def test_what_does_not_fit_alone_is_told():
    with pytest.raises(RuntimeError, match="expected memory for 1 searches at once"):
        answers(Narrow(0))
    with pytest.raises(RuntimeError, match="a smaller search"):
        answers(Narrow(3, 8), lane=4)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="something else"):
        answers(Narrow(1, 0, RuntimeError("something else")))
