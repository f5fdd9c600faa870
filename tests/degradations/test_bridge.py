"""Functions as degradations: kornia's filters against their definitions, adjoints by derivatives, what is refused."""

import math
from functools import partial

import kornia
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional

from degradations.bridge import CallableDegradation, LinearCallable, as_tuple, wrap
from pulse_framework.cli.compose import build
from pulse_framework.testing import DegradationContract, LinearDegradationContract
from tests.degradations.dense import check_bits, check_dense

SHAPE = (3, 6, 7)
WEIGHTS = torch.randn(126, 13, generator=torch.Generator().manual_seed(0))


def images(count=2, shape=SHAPE):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def product(x):
    return x.flatten(1) @ WEIGHTS.to(x)


def gaussian_taps(size, sigma):
    taps = torch.exp(-(torch.arange(size).double() - size // 2).square() / (2 * sigma**2))
    return taps / taps.sum()


def gaussian_blur(x, size, sigma):
    """Sums of shifted copies of an image whose edge is reflected without repetition."""
    taps, half = gaussian_taps(size, sigma), size // 2
    padded = functional.pad(x, (half, half, half, half), mode="reflect")
    height, width = x.shape[2:]
    rows = sum(tap * padded[:, :, i : i + height] for i, tap in enumerate(taps))
    return sum(tap * rows[..., i : i + width] for i, tap in enumerate(taps))


def test_kornia_module_by_target_is_the_blur_it_says_and_has_its_adjoint():
    node = OmegaConf.create(
        {
            "_target_": "degradations.bridge.wrap",
            "function": {
                "_target_": "kornia.filters.GaussianBlur2d",
                "kernel_size": 5,
                "sigma": {"_target_": "degradations.bridge.as_tuple", "values": [1.5, 1.5]},
            },
            "linear": True,
            "bits": 8,
        }
    )
    blur = build(node, ["kornia"]).double()
    assert isinstance(blur, LinearCallable)
    assert blur.gap == 0.5 / 255
    torch.testing.assert_close(blur(images()), gaussian_blur(images(), 5, 1.5), rtol=0, atol=1e-7)  # its taps are float32
    shape = (1, 6, 5)
    expected = blur.function(torch.eye(30, dtype=torch.float64).reshape(30, *shape)).flatten(1).T
    check_dense(blur, shape, expected)


def test_kornia_function_by_target_is_taken_partially():
    node = OmegaConf.create(
        {
            "_target_": "degradations.bridge.wrap",
            "function": {"_target_": "kornia.color.rgb_to_grayscale", "_partial_": True},
            "linear": True,
        }
    )
    grey = build(node, ["kornia"])
    assert grey.measurement_shape(SHAPE) == (1, 6, 7)
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(grey(images()), (luma * images()).sum(1, keepdim=True), rtol=0, atol=1e-7)


def test_linear_function_has_the_matrix_it_has():
    check_dense(LinearCallable(product), SHAPE, WEIGHTS.double().T)


def test_rows_do_not_meet_by_a_bit():
    check_bits(LinearCallable(product), SHAPE)
    check_bits(CallableDegradation(lambda x: product(x).sin()), SHAPE)
    check_bits(LinearCallable(kornia.filters.BoxBlur(3)), SHAPE)


def test_statistics_of_a_batch_are_those_of_the_image():
    """A function that mixes its batch cannot do so here."""
    centred = CallableDegradation(lambda x: x - x.mean(0, keepdim=True) + x.mean())
    x = images(3)
    assert torch.equal(centred(x), torch.cat([centred(row) for row in x.split(1)]))


def test_module_is_frozen_and_moves_along():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    operator = wrap(network).double()
    assert not any(part.training or any(p.requires_grad for p in part.parameters()) for part in network.modules())
    assert operator(images()).dtype == torch.float64
    assert operator.measurement_shape(SHAPE) == (2, 4, 5)


def test_empty_batch_gives_an_empty_measurement():
    assert LinearCallable(product)(images(0)).shape == (0, 13)


def test_measure_rounds_pictures_and_nothing_else():
    x = 3 * images() - 1
    assert torch.equal(wrap(nn.Identity(), bits=8).measure(x, torch.Generator()), (x.clamp(0, 1) * 255).round() / 255)
    assert torch.equal(wrap(nn.Identity()).measure(x, torch.Generator()), x)


def test_process_is_measured_one_image_after_the_other():
    def process(x, rng):
        return x + 0.1 * torch.randn(x.shape, generator=rng, dtype=x.dtype)

    operator = wrap(nn.Identity(), process=process, gap=0.13)
    rng = torch.Generator().manual_seed(3)
    expected = torch.cat([process(row, rng) for row in images().split(1)])
    assert torch.equal(operator.measure(images(), torch.Generator().manual_seed(3)), expected)
    assert operator.gap == 0.13


def test_adjoint_under_inference_and_its_derivative():
    operator = LinearCallable(product)
    y = torch.rand(2, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = (y @ WEIGHTS.double().T).reshape(2, *SHAPE)
    with torch.inference_mode():
        torch.testing.assert_close(operator.adjoint(y.clone(), SHAPE), expected, rtol=0, atol=1e-12)
    assert not operator.adjoint(y, SHAPE).requires_grad
    assert torch.autograd.gradcheck(lambda z: operator.adjoint(z, SHAPE), (y.requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.clamp(0, 1),
        lambda x: x.square(),
        lambda x: x + 1e-3,
        lambda x: x.abs(),
        lambda x: (255 * x).round() / 255,
        lambda x: x / x.mean(),
        lambda x: x * math.nan,
    ],
)
def test_what_is_not_linear_is_refused_at_first_use(function):
    for use in (lambda a: a(images()), lambda a: a.measurement_shape(SHAPE), lambda a: a.adjoint(images(), SHAPE)):
        with pytest.raises(ValueError, match=r"LinearCallable: expected f\(.* needs linear to be false"):
            use(LinearCallable(function))
    wrap(function)(images())


def test_functions_that_give_no_measurement_are_told():
    cases = {
        "got ValueError: .* got tuple": lambda x: (x,),
        "got ValueError: .* got torch.int64": lambda x: x.long(),
        r"got ValueError: .* shape \(3,": lambda x: x[0],
        r"got RuntimeError: .* cannot be multiplied .* resize the image": lambda x: x.flatten(1) @ WEIGHTS[1:],
        r"got ValueError: .* shape \(1, 0,": lambda x: x[:, :0],
        "got KeyError": lambda x: {}["image"],
    }
    for message, function in cases.items():
        with pytest.raises(ValueError, match=rf"CallableDegradation: expected a function .* \(1, 3, 6, 7\) .*{message}"):
            wrap(function).measurement_shape(SHAPE)
    with pytest.raises(ValueError, match=r"expected a tensor of floats of shape \(1, ...\) for one image, got tuple"):
        wrap(lambda x: (x,))(images())


def test_mistakes_are_told():
    with pytest.raises(
        TypeError, match=r"CallableDegradation function: expected something to call, got Tensor; .*_partial_: true"
    ):
        wrap(torch.zeros(1))
    for values, name in (({"bits": 0}, "bits"), ({"gap": -1.0}, "gap"), ({"process": lambda x, rng: x}, "gap")):
        with pytest.raises(ValueError, match=f"LinearCallable {name}: expected .* got"):
            wrap(nn.Identity(), linear=True, **values)
    with pytest.raises(ValueError, match=r"LinearCallable adjoint: expected y of shape \(N, \*\(13,\)\), got \(1, 12\)"):
        LinearCallable(product).adjoint(torch.zeros(1, 12), SHAPE)
    assert as_tuple([1, 2.5]) == (1, 2.5)


class TestContractOfCallableDegradation(DegradationContract):
    image_shapes = (SHAPE, (1, 8, 8))

    def make(self):
        return CallableDegradation(lambda x: functional.avg_pool2d(x.clamp(min=1e-3) ** 2.2, 2), bits=8)

    def oracle(self, x):
        height, width = (2 * (side // 2) for side in x.shape[2:])
        y = x[..., :height, :width] ** 2.2
        return (y[..., ::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, ::2] + y[..., 1::2, 1::2]) / 4


class TestContractOfKorniaModule(LinearDegradationContract):
    image_shapes = (SHAPE, (1, 8, 8))
    keeps_constants = True

    def make(self):
        return LinearCallable(kornia.filters.BoxBlur(3), bits=8)

    def oracle(self, x):
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.avg_pool2d(padded, 3, 1)


class TestContractOfLinearFunction(LinearDegradationContract):
    image_shapes = (SHAPE,)

    def make(self):
        return wrap(partial(torch.roll, shifts=(1, 2), dims=(2, 3)), linear=True)

    def oracle(self, x):
        return x[:, :, [5, 0, 1, 2, 3, 4]][..., [5, 6, 0, 1, 2, 3, 4]]
