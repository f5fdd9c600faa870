"""Several codes blended at a layer, against the sum written out."""

import pytest
import torch

from generators.dcgan import DCGAN, dcgan_network
from generators.linear import LinearGenerator
from generators.multi_code import MultiCode
from pulse_framework.testing import GeneratorContract

CODES = 3


def inner():
    torch.manual_seed(0)
    network = dcgan_network(5, (8, 6))
    for tensor in network.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    return DCGAN(network, 5, 16)


def latents(count=2):
    rng = torch.Generator().manual_seed(1)
    return {
        "codes": torch.randn(count, CODES, 5, generator=rng, dtype=torch.float64),
        "alpha": torch.randn(count, CODES, 6, generator=rng, dtype=torch.float64),
    }


def test_features_are_blended_channel_by_channel():
    generator, given = MultiCode(inner(), "features_8", CODES).double(), latents()
    first, second = generator.generator.network[:6], generator.generator.network[6:]
    for row in range(2):
        features = [first(code[None, :, None, None]) for code in given["codes"][row]]
        blended = sum(alpha[:, None, None] * one for alpha, one in zip(given["alpha"][row], features, strict=True))
        torch.testing.assert_close(generator(given)[row], (second(blended)[0] + 1) / 2)


def test_one_code_of_weight_one_is_the_generator():
    generator = MultiCode(inner(), "features_4", 1).double()
    z = latents()["codes"][:, :1]
    image = generator({"codes": z, "alpha": torch.ones(2, 1, 8, dtype=torch.float64)})
    torch.testing.assert_close(image, generator.generator({"z": z[:, 0]}))


def test_weights_begin_at_one_in_as_many_as_there_are_codes():
    (_, alpha) = MultiCode(inner(), codes=CODES).blocks
    assert torch.equal(alpha.native.sample(alpha.shape, torch.Generator()), torch.full((CODES, 6), 1 / CODES))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "features_16"}, r"MultiCode layer: expected one of \['features_4', 'features_8'\], got 'features_16'"),
        ({"codes": 0}, "MultiCode codes: expected at least 1, got 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        MultiCode(inner(), **settings)


def test_a_generator_without_features_is_refused():
    linear = LinearGenerator(torch.ones(3, 4, 4, 2), torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"MultiCode layer: expected one of \[\], got 'features_8'"):
        MultiCode(linear)


class TestMultiCode(GeneratorContract):
    def make(self):
        return MultiCode(inner(), "features_8", CODES)

    def oracle(self, latents):
        network = inner().double().network
        parts = torch.stack([network[:6](code[:, :, None, None]) for code in latents["codes"].double().unbind(1)], 1)
        blended = (parts * latents["alpha"].double()[..., None, None]).sum(1)
        return (network[6:](blended) + 1) / 2
