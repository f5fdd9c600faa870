"""The latent bank: nearest by brute force, restarts apart, and a cache that is never trusted blindly."""

import pytest
import torch

from pulse_framework.home import cache_folder
from pulse_framework.priors import SpherePrior
from pulse_framework.search import SGD, Engine, L2Consistency, LatentBank, Objective, Phase, Search, StopRule
from pulse_framework.search.bank import _row
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import ConvToy, PoolToy

PRIOR = SpherePrior(radius="sqrt_dim")
DRAWS = 700
PHASE = Phase(
    prior=PRIOR, objective=Objective({"data": L2Consistency()}), optimiser=SGD(rate=1e-9), stop=StopRule(steps=1, target_mse=0.0)
)


class Counted(ConvToy):
    """Counts the images that it makes."""

    seen = 0

    def synthesize(self, latents):
        Counted.seen += len(latents["z"])
        return super().synthesize(latents)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))


def searches(count, restarts=1):
    generator, operator = ConvToy(), PoolToy(4)
    ys = [
        operator(generator({"z": PRIOR.manifold.project(torch.randn(1, 8, generator=rng(k)))}))[0].detach() for k in range(count)
    ]
    return [Search(str(k), y, restart, index=restarts * k + restart) for k, y in enumerate(ys) for restart in range(restarts)]


def starts(found, draws=DRAWS, generator=None, slots=4, **options):
    engine = Engine(generator or ConvToy(), PoolToy(4), [PHASE], start=LatentBank(draws=draws, **options), slots=slots)
    return [result.latents["z"] for result in sorted(engine.run(found), key=lambda result: result.index)]


def rows(draws=DRAWS):
    return torch.cat([_row(ConvToy(), {"z": PRIOR}, torch.zeros(1), index)["z"] for index in range(draws)])


def test_restart_0_begins_at_the_nearest_row():
    z = rows()
    measured = PoolToy(4)(ConvToy()({"z": z})).detach()
    for search, start in zip(searches(4), starts(searches(4)), strict=True):
        errors = (measured - search.measurement).square().flatten(1).mean(1)
        torch.testing.assert_close(start, z[errors.argmin()], rtol=1e-6, atol=1e-6)


def test_restarts_begin_apart_and_near():
    """Each of them among the 8 r + 1 nearest; farther from one another than the nearest rows are."""
    z, count = rows(), 5
    measured = PoolToy(4)(ConvToy()({"z": z})).detach()
    found = torch.stack(starts(searches(1, restarts=count)))
    order = (measured - searches(1)[0].measurement).square().flatten(1).mean(1).argsort()
    places = [int((z[order] - start).norm(dim=1).argmin()) for start in found]
    assert places[0] == 0
    assert all(0 < place <= 8 * restart for restart, place in enumerate(places) if restart)
    assert len(set(places)) == count

    def least(points):
        return float((torch.cdist(points, points) + 1e9 * torch.eye(count)).min())

    assert least(found) > least(z[order[:count]])


def test_starts_ignore_the_batch_and_smaller_banks_are_the_first_rows():
    alone = [starts([search], slots=1)[0] for search in searches(3, restarts=2)]
    together = starts(searches(3, restarts=2)[::-1], slots=8)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    z = rows(60)
    assert all(bool((z - start).norm(dim=1).min() < 1e-5) for start in starts(searches(3), draws=60))


def test_the_second_run_reads_what_the_first_has_written():
    first = starts(searches(2), generator=Counted())
    Counted.seen = 0
    assert all(torch.equal(one, other) for one, other in zip(first, starts(searches(2), generator=Counted()), strict=True))
    few = Counted.seen
    assert len(list(cache_folder("banks").iterdir())) == 1
    Counted.seen = 0
    assert all(
        torch.equal(one, other) for one, other in zip(first, starts(searches(2), generator=Counted(), cache=False), strict=True)
    )
    assert Counted.seen >= few + DRAWS - 2 * 512


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: data[:200] + bytes(400) + data[600:],
        lambda data: data[:-9000] + bytes(4) + data[-8996:],
    ],
)
def test_a_damaged_file_is_made_anew(damage):
    first = starts(searches(2))
    (path,) = cache_folder("banks").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert all(torch.equal(one, other) for one, other in zip(first, starts(searches(2)), strict=True))
    assert path.read_bytes() == whole


def test_another_generator_has_another_file_and_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    first = starts(searches(1))
    other = ConvToy()
    other.network[0].weight.data += 0.1
    changed = starts(searches(1), generator=other)
    assert len(list(cache_folder("banks").iterdir())) == 2
    assert not torch.equal(first[0], changed[0])
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "file"))
    assert torch.equal(first[0], starts(searches(1))[0])
