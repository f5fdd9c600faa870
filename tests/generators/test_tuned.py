"""Weights that move: against a network whose weights were changed, and by finite differences."""

import copy

import pytest
import torch
from torch import nn

from generators._stylegan2_architecture import Architecture, random_tensors
from generators.module import ModuleGenerator
from generators.stylegan2 import StyleGAN2
from generators.tuned import Tuned
from pulse_framework.testing import GeneratorContract

TINY = Architecture((6, 5), z_dim=5, w_dim=7, mapping_layers=2)
SYNTHESIS = ("synthesis.*weight", "synthesis.*bias", "synthesis.*strength", "synthesis.const")


def stylegan():
    return StyleGAN2(random_tensors(TINY), TINY)


def inputs(generator, count=2):
    rng = torch.Generator().manual_seed(3)
    names = ["w", *(block.name for block in generator.blocks if block.name.startswith("noise_")), "weights"]
    shapes = {block.name: block.shape for block in generator.blocks}
    scale = {"weights": 0.05}
    return {name: scale.get(name, 1) * torch.randn(count, *shapes[name], generator=rng, dtype=torch.float64) for name in names}


def test_it_is_the_generator_of_the_changed_weights():
    """The checkpoint's own tensors changed, and read anew: demodulation, too, is that of the changed weights."""
    plain = stylegan()
    generator = Tuned(stylegan(), SYNTHESIS).double()
    given = inputs(generator, 1)
    network, changed, begin = plain.double(), {}, 0
    for name, shape in generator.shapes.items():
        size = shape.numel()
        changed[name], begin = given["weights"][0, begin : begin + size].reshape(shape), begin + size
    rest = {name: value for name, value in given.items() if name != "weights"}
    before = network(rest)
    with torch.no_grad():
        for name, tensor in network.state_dict(keep_vars=True).items():
            if name in changed:
                tensor += changed[name]
    torch.testing.assert_close(generator(given), network(rest))
    assert float((generator(given) - before).abs().max()) > 0.01


def test_no_change_is_the_generator():
    generator, plain = Tuned(stylegan()).double(), stylegan().double()
    given = inputs(generator)
    rest = {name: value for name, value in given.items() if name != "weights"}
    zero = generator.lift(rest, "weights")
    assert not zero.any()
    torch.testing.assert_close(generator(rest | {"weights": zero}), plain(rest))
    assert torch.equal(generator(rest), plain(rest))


def test_slope_along_a_change_is_that_of_finite_differences():
    generator = Tuned(stylegan(), SYNTHESIS).double()
    given = inputs(generator)
    weights = given["weights"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(generator({**given, "weights": weights}).square().sum(), weights)
    way = torch.randn_like(weights)
    values = [float(generator({**given, "weights": given["weights"] + step * way}).square().sum()) for step in (1e-6, -1e-6)]
    assert float((gradient * way).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


def test_the_weights_of_the_generator_stay():
    inner = stylegan()
    before = copy.deepcopy(inner.state_dict())
    generator = Tuned(inner)
    given = {name: value.float() for name, value in inputs(generator).items()}
    generator(given)
    assert all(torch.equal(value, before[name]) for name, value in inner.state_dict().items())


def test_patterns_are_checked():
    with pytest.raises(ValueError, match=r"Tuned tensors: expected patterns of names such as synthesis\..*, got \['nope\*'\]"):
        Tuned(stylegan(), ["synthesis.*", "nope*"])
    with pytest.raises(ValueError, match="Tuned generator: expected one without a block 'weights'"):
        Tuned(Tuned(stylegan()))


class TestTunedNetwork(GeneratorContract):
    lifts = (("z", "weights"),)

    def make(self):
        torch.manual_seed(0)
        return Tuned(
            ModuleGenerator(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 12), nn.Unflatten(1, (3, 2, 2))), (3,))
        )

    def oracle(self, latents):
        network = self.make().double().inner.generator.network
        first, second = network[0], network[2]
        rows = []
        for row, z in enumerate(latents["z"].double()):
            change = latents["weights"][row].double() if "weights" in latents else torch.zeros(8 + 24 + 12 + 96).double()
            b1, w1, b2, w2 = change.split([8, 24, 12, 96])
            hidden = torch.tanh((first.weight + w1.reshape(8, 3)) @ z + first.bias + b1)
            rows.append((second.weight + w2.reshape(12, 8)) @ hidden + second.bias + b2)
        return (torch.stack(rows).reshape(-1, 3, 2, 2) + 1) / 2


class TestTunedStyleGAN2(GeneratorContract):
    def make(self):
        return Tuned(stylegan(), SYNTHESIS)
