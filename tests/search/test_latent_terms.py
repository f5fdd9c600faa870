"""Terms of the latents alone: by hand, against the distributions that they are fitted to, and in a search."""

import pytest
import torch

from degradations.downscale import Downscale
from generators._gaussian_fit import fit_gaussian
from generators._stylegan2_architecture import Architecture, random_tensors
from generators.stylegan2 import StyleGAN2
from pulse_framework.priors import GaussianPrior
from pulse_framework.search import (
    Adam,
    Coupling,
    Engine,
    Evaluation,
    GaussianEnergy,
    Geocross,
    L2Consistency,
    LatentNorm,
    Objective,
    PairwiseCosine,
    Phase,
    Search,
    StopRule,
    draw,
    stream,
)

TINY = Architecture((6, 5), z_dim=5, w_dim=7, mapping_layers=2)


def generator(**settings):
    tensors = random_tensors(TINY)
    mapping = StyleGAN2(tensors, TINY, noise="none").styles.mapping
    return StyleGAN2(tensors, TINY, fit_gaussian(mapping, 5, 2000), noise="none", **settings)


def at(latents, lift):
    nothing = torch.zeros(len(next(iter(latents.values()))))
    return Evaluation(latents, {}, nothing, nothing, nothing, nothing, lift)


def test_norm_and_coupling_by_hand():
    blocks = {"w_plus": torch.tensor([[[1.0, 2.0], [3.0, 0.0]]]), "w_anchor": torch.tensor([[1.0, 1.0]])}
    seen = at(blocks, blocks.__getitem__)
    assert LatentNorm(block="w_plus")(seen).tolist() == [(1 + 4 + 9) / 4]
    assert Coupling()(seen).tolist() == [(0 + 1 + 4 + 1) / 4]
    assert Coupling(anchor="w_plus")(seen).tolist() == [0]


@pytest.mark.parametrize("full", [False, True])
def test_energy_is_that_of_the_mapping(full):
    """Half a nat an entry over new draws of z; against the covariance of these by hand."""
    network = generator()
    term = GaussianEnergy(block="w", covariance="full" if full else "diagonal", samples=4000).on(network, ["w"])
    latents = {"w": network.lift({"z": torch.randn(4000, 5, generator=torch.Generator().manual_seed(5))}, "w")}
    values = term(at(latents, latents.__getitem__))
    assert float(values.mean()) == pytest.approx(0.5, abs=0.03)
    w = latents["w"].double()
    mean, covariance = w.mean(0), w.T.cov()
    covariance = covariance if full else covariance.diagonal().diag()
    expected = ((w - mean) @ torch.linalg.inv(covariance) * (w - mean)).sum(1) / 7 / 2
    torch.testing.assert_close(values.double().mean(), expected.mean(), rtol=0.05, atol=0)
    assert float((values.double() - expected).abs().median()) < 0.05


def test_row_energy_is_distance_over_the_length_of_a_row():
    network = generator()
    term = GaussianEnergy(block="w", covariance="row", samples=4000).on(network, ["w"])
    w = network.lift({"z": torch.randn(4000, 5, generator=torch.Generator().manual_seed(5))}, "w").double()
    apart = (w - w.mean(0)).square().sum(1)
    expected = apart / apart.mean() / 7 / 2
    torch.testing.assert_close(term(at({"w": w}, lambda _: w)), expected, rtol=0.1, atol=0.01)


def test_energy_has_no_other_covariance():
    with pytest.raises(
        ValueError, match=r"GaussianEnergy covariance: expected one of \('diagonal', 'full', 'row'\), got 'block'"
    ):
        GaussianEnergy(block="w", covariance="block").on(generator(), ["w"])


def test_pairwise_cosine_by_hand():
    """Rows (1, 0), (0, 2), (-3, 0): of nine pairs three agree, four are at right angles, two opposite."""
    rows = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]], [[1.0, 1.0], [2.0, 2.0], [5.0, 5.0]]])
    values = PairwiseCosine()(at({"w_plus": rows}, lambda _: rows))
    assert values.tolist() == pytest.approx([(4 * 1 + 2 * 2) / 9, 0], abs=1e-6)


def test_pairwise_cosine_wants_rows():
    with pytest.raises(ValueError, match="PairwiseCosine block: expected one of several rows, got 'w'"):
        PairwiseCosine(block="w").on(generator(), ["w"])


def test_energy_of_all_rows_of_the_mapping_is_that_of_one():
    network = generator()
    term = GaussianEnergy(samples=1000).on(network, ["w_plus"])
    one = GaussianEnergy(block="w", samples=1000).on(network, ["w"])
    z = {"z": torch.randn(3, 5)}
    each, single = network.lift(z, "w_plus"), network.lift(z, "w")
    torch.testing.assert_close(term(at({"w_plus": each}, lambda _: each)), one(at({"w": single}, lambda _: single)))


def test_energy_knows_classes():
    classes = Architecture((6, 5), z_dim=5, w_dim=7, c_dim=3, mapping_layers=2)
    network = StyleGAN2(random_tensors(classes), classes, noise="none")
    term = GaussianEnergy(block="w", samples=500).on(network, ["w"])
    rows = [draw(network, {}, stream(3, str(k)), torch.empty(()), ["w"])["w"] for k in range(500)]
    values = term(at({"w": torch.cat(rows)}, lambda _: torch.cat(rows)))
    assert float(values.mean()) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (LatentNorm(block="nothing"), r"LatentNorm block: expected one of .*'p_n', .*, got 'nothing'"),
        (LatentNorm(block="p_n"), r"expected a block that \['w_plus'\] can be lifted to, got 'p_n'"),
        (Coupling(), r"Coupling block: expected one of .*, got 'w_anchor'"),
        (Coupling(anchor="w_plus_plus"), r"expected shape \(4, 7\) or \(7,\), as of w_plus, got \(19, 7\)"),
        (GaussianEnergy(samples=7), "expected more than the 7 entries of a row, got 7"),
    ],
)
def test_terms_that_cannot_work_are_refused(term, message):
    with pytest.raises(ValueError, match=message):
        term.on(generator(), ["w_plus"])


def test_geocross_is_refused_where_no_way_leads():
    with pytest.raises(ValueError, match=r"expected a block that \['w_plus_plus'\] can be lifted to, got 'w_plus'"):
        Geocross().on(generator(), ["w_plus_plus"])


def test_search_of_w_plus_coupled_to_z():
    """L-BRGM: z first, then w+ and z at once. A larger weight of the coupling brings them nearer to one another."""
    network, apart = generator(anchor=True), []
    y = Downscale(2)(network({"z": torch.randn(1, 5, generator=torch.Generator().manual_seed(1))}))[0]
    for weight in (0.0, 10.0):
        terms = {"data": L2Consistency(), "z": LatentNorm(block="z_anchor", weight=0.01), "near": Coupling(weight=weight)}
        first = Phase(
            prior=GaussianPrior(),
            objective=Objective({"data": L2Consistency()}),
            optimiser=Adam(rate=0.05),
            stop=StopRule(steps=5),
            blocks=["z"],
        )
        second = Phase(
            prior=GaussianPrior(),
            objective=Objective(terms),
            optimiser=Adam(rate=0.05),
            stop=StopRule(steps=30),
            blocks=["w_plus", "z_anchor"],
        )
        (found,) = Engine(network, Downscale(2), [first, second]).run([Search("face", y.detach())])
        anchor = network.lift({"z_anchor": found.latents["z_anchor"][None]}, "w_anchor")
        apart.append(float((found.latents["w_plus"] - anchor).square().mean()))
        assert found.steps == 35
    assert apart[1] < apart[0] / 2
