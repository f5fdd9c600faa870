"""PSFs against closed forms (transforms, moments, areas, Bessel's integral); their derivatives by finite differences."""

import math

import pytest
import torch

from degradations import _psf
from degradations.blur import Blur, box_blur, defocus, gaussian_blur, motion_blur, sinc_blur, trajectory_blur

SIDE = 60


def numbers(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places(psf):
    """Upward and rightward place of every entry."""
    up = (psf.shape[0] // 2 - torch.arange(psf.shape[0])).double()[:, None].expand(psf.shape)
    return up, (torch.arange(psf.shape[1]) - psf.shape[1] // 2).double().expand(psf.shape)


def covariance(psf):
    """Second moments about the middle: up, right and mixed."""
    up, right = places(psf)
    return [float((psf * a * b).sum()) for a, b in ((up, up), (right, right), (up, right))]


def padded(psf, size):
    margins = [(size - side) // 2 for side in psf.shape]
    return torch.nn.functional.pad(psf, (margins[1], margins[1], margins[0], margins[0]))


def frequency(blur, across, down):
    """What becomes of a wave of so many periods across a circular image, relative to it."""
    at = torch.arange(SIDE, dtype=torch.float64) * 2 * math.pi / SIDE
    wave = (across * at + down * at[:, None])[None, None]
    y = torch.complex(blur(wave.cos()), blur(wave.sin()))
    shares = y / torch.polar(torch.ones_like(wave), wave)
    torch.testing.assert_close(shares, shares.mean().expand_as(shares), rtol=0, atol=1e-12)
    return complex(shares.mean())


@pytest.mark.parametrize(("sigma", "ratio", "angle"), [(1.0, 1.0, 0.0), (2.5, 1.0, 0.0), (3.0, 0.5, 0.6), (1.1, 2.0, -1.2)])
def test_a_gaussian_damps_waves_by_its_transform(sigma, ratio, angle):
    blur = gaussian_blur(sigma, ratio, angle, "circular")
    for across, down in ((1, 0), (0, 3), (4, 5), (5, -4)):
        right, up = 2 * math.pi * across / SIDE, -2 * math.pi * down / SIDE
        along, over = math.cos(angle) * right + math.sin(angle) * up, math.cos(angle) * up - math.sin(angle) * right
        expected = math.exp(-((sigma * along) ** 2 + (ratio * sigma * over) ** 2) / 2)
        assert abs(frequency(blur, across, down) - expected) <= 3e-4  # cut off at four sigma


def test_a_gaussian_after_another_is_a_gaussian():
    x = numbers(1, 2, 40, 30)
    twice = gaussian_blur(1.5, boundary="circular")(gaussian_blur(2.0, boundary="circular")(x))
    torch.testing.assert_close(gaussian_blur(2.5, boundary="circular")(x), twice, rtol=0, atol=1e-4)
    assert (gaussian_blur(2.4, boundary="circular")(x) - twice).abs().max() > 1e-3


def test_a_gaussian_too_narrow_for_pixels_changes_nothing():
    x = numbers(1, 2, 9, 8)
    torch.testing.assert_close(gaussian_blur(0.05)(x), x, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("length", "angle"), [(2.0, 0.0), (6.5, 0.0), (9.3, 0.7), (20.0, 2.5), (4.0, math.pi / 2)])
def test_a_line_has_its_length_and_direction(length, angle):
    psf = motion_blur(length, angle).psf
    torch.testing.assert_close(psf, psf.flip(0, 1), rtol=0, atol=1e-15)
    up, right = places(psf)
    far = torch.hypot(up, right) > length / 2 + math.sqrt(2)
    off = (math.cos(angle) * up - math.sin(angle) * right).abs() > math.sqrt(2)
    assert not psf[far | off].any()
    vertical, horizontal, mixed = covariance(psf)
    # bilinear shares leave means as they are and add to each variance at most 1/4; of all points 1/6 on average
    variance = length**2 / 12
    assert 0 <= horizontal - variance * math.cos(angle) ** 2 <= 0.25
    assert 0 <= vertical - variance * math.sin(angle) ** 2 <= 0.25
    assert mixed == pytest.approx(variance * math.cos(angle) * math.sin(angle), abs=1e-5 * variance + 1e-12)


def test_lines_known_in_closed_form():
    quarter = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(motion_blur(2.0).psf[1], quarter, rtol=0, atol=1e-6)
    torch.testing.assert_close(motion_blur(2.0, math.pi / 2).psf.mT, motion_blur(2.0).psf, rtol=0, atol=1e-12)
    # along the diagonal at (t, t), |t| <= 1: the middle has the mean of (1 - |t|)^2, a corner that of t^2 over one half
    sixths = torch.tensor([[1, 1, 0], [1, 4, 1], [0, 1, 1]], dtype=torch.float64).flip(1)
    sixths[0, 2] = sixths[2, 0] = 2
    sixths[0, 1] = sixths[1, 0] = sixths[1, 2] = sixths[2, 1] = 1
    torch.testing.assert_close(motion_blur(2 * math.sqrt(2), math.pi / 4).psf * 12, sixths, rtol=0, atol=1e-5)


def test_a_path_too_short_for_pixels_changes_nothing():
    x = numbers(1, 2, 9, 8)
    for blur in (motion_blur(1e-9, 0.3), trajectory_blur(1e-9), defocus(0.5), defocus(1e-3), box_blur(1), sinc_blur(1.0, 1)):
        torch.testing.assert_close(blur(x), x, rtol=0, atol=1e-8)


def test_a_trajectory_without_bends_is_a_line():
    straight = trajectory_blur(11.0, seed=3, bend=0.0).psf
    start = 2 * math.pi * float(torch.rand((), generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    torch.testing.assert_close(straight, motion_blur(11.0, start).psf, rtol=0, atol=1e-12)


def test_trajectories_are_centred_connected_and_of_their_length():
    for seed in range(20):
        psf = trajectory_blur(30.0, seed, bend=3.0).psf
        up, right = places(psf)
        assert abs(float((psf * up).sum())) < 1e-9
        assert abs(float((psf * right).sum())) < 1e-9
        touched = psf > 0
        reached = torch.zeros_like(touched)
        reached.flatten()[touched.flatten().nonzero()[0]] = True
        for _ in range(psf.numel()):
            grown = torch.nn.functional.max_pool2d(reached[None].double(), 3, 1, 1)[0].bool() & touched
            if torch.equal(grown, reached):
                break
            reached = grown
        assert torch.equal(reached, touched)
        assert 16 <= int(touched.sum()) <= 4 * 31
        assert torch.equal(psf, trajectory_blur(30.0, seed, bend=3.0).psf)
    assert len({tuple(trajectory_blur(30.0, seed).psf.shape) for seed in range(20)}) > 5


def test_headings_turn_by_the_bend(monkeypatch):
    """The mean square distance of the ends of a curve whose heading is a Brownian motion."""
    length, bend, squares = 10.0, 1.5, []

    def path(up, right):
        squares.append((up[-1] - up[0]) ** 2 + (right[-1] - right[0]) ** 2)
        return torch.ones(1, 1)

    monkeypatch.setattr(_psf, "_path", path)
    for seed in range(300):
        trajectory_blur(length, seed, bend)
    squares = torch.stack(squares)
    half = bend**2 / 2  # E cos(heading(s) - heading(t)) = exp(-bend^2 |s - t| / 2)
    expected = length**2 * 2 * (half - 1 + math.exp(-half)) / half**2
    assert abs(float(squares.mean()) - expected) <= 4 * float(squares.std()) / math.sqrt(len(squares))


@pytest.mark.parametrize("radius", [1.0, 2.0, 3.7, 8.25])
def test_a_disk_covers_pixels_by_their_area(radius):
    reach, fine = math.ceil(radius + 0.5), 64
    at = (torch.arange((2 * reach + 1) * fine, dtype=torch.float64) + 0.5) / fine - reach - 0.5
    inside = (at[:, None].square() + at.square() <= radius**2).double()
    area = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean((1, 3))
    psf = padded(defocus(radius).psf, 2 * reach + 1)
    scaled = psf / psf.max()
    inner = area == 1
    assert float((scaled - area)[~inner].abs().max()) <= 0.12
    assert bool((scaled[inner] >= 0.9).all())
    assert 1 / float(psf.max()) == pytest.approx(math.pi * radius**2, rel=0.08 / radius + 0.01)


def test_disks_known_in_closed_form():
    corner = 1.5 - math.sqrt(2)
    expected = torch.tensor([[corner, 0.5, corner], [0.5, 1, 0.5], [corner, 0.5, corner]], dtype=torch.float64)
    torch.testing.assert_close(defocus(1.0).psf, expected / (3 + 4 * corner), rtol=0, atol=1e-15)


def test_a_box_is_a_mean():
    x = numbers(1, 1, 6, 7)
    y = box_blur(2, "zero")(x)
    torch.testing.assert_close(y[..., :-1, :-1], torch.nn.functional.avg_pool2d(x, 2, 1), rtol=0, atol=1e-15)
    torch.testing.assert_close(box_blur(3, "zero")(x), torch.nn.functional.avg_pool2d(x, 3, 1, 1), rtol=0, atol=1e-15)


@pytest.mark.parametrize("cutoff", [0.7, 2.0, math.pi])
def test_the_sinc_kernel_is_its_integral(cutoff):
    psf = sinc_blur(cutoff, 11).psf
    turn = (torch.arange(200, dtype=torch.float64) + 0.5) * math.pi / 200
    r = torch.hypot(*places(psf))
    bessel = torch.cos(turn - cutoff * r[..., None] * turn.sin()).mean(-1)  # J_1, by Bessel's integral
    expected = torch.where(r == 0, cutoff**2 / (4 * math.pi), cutoff * bessel / (2 * math.pi * r.clamp(min=1)))
    torch.testing.assert_close(psf, expected / expected.sum(), rtol=0, atol=1e-14)


def test_the_sinc_kernel_passes_what_is_below_its_cutoff():
    blur = sinc_blur(1.5, 59, "circular")
    for across, down in ((5, 0), (0, 9), (6, 7)):
        assert abs(frequency(blur, across, down)) == pytest.approx(1, abs=0.1)
    for across, down in ((20, 0), (0, 25), (15, 16)):
        assert abs(frequency(blur, across, down)) < 0.1


def parameter(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


MADE = {
    "narrow gaussian": (lambda sigma: gaussian_blur(sigma), (0.45,)),
    "gaussian": (lambda *p: gaussian_blur(*p, "circular"), (1.3, 0.6, 0.4)),
    "wide gaussian": (lambda *p: gaussian_blur(*p), (0.8, 2.2, -2.0)),
    "motion": (lambda *p: motion_blur(*p), (1.7, 0.4)),
    "long motion": (lambda *p: motion_blur(*p, "zero"), (7.3, 2.0)),
    "trajectory": (lambda length, bend: trajectory_blur(length, 1, bend), (5.2, 1.4)),
    "defocus": (lambda *p: defocus(*p), (0.9,)),
    "sinc": (lambda *p: sinc_blur(*p, 7), (1.9,)),
    "wide defocus": (lambda *p: defocus(*p, "replicate"), (3.3,)),
}


@pytest.mark.parametrize("name", MADE)
def test_derivatives_by_the_parameters(name):
    make, values = MADE[name]
    x, parameters = numbers(1, 1, 7, 6), tuple(map(parameter, values))
    # a point at a pixel's centre has a kink: the step has to miss those
    assert torch.autograd.gradcheck(lambda *p: make(*p)(x), parameters, eps=1e-7, atol=1e-6)
    gradients = torch.autograd.grad((make(*parameters)(x) * numbers(1, 1, 7, 6, seed=1)).sum(), parameters)
    assert all(abs(float(gradient)) > 1e-5 for gradient in gradients)


@pytest.mark.parametrize("name", MADE)
def test_tensors_and_numbers_give_the_same_bits(name):
    make, values = MADE[name]
    assert torch.equal(make(*values).psf, make(*map(parameter, values)).psf)
    assert not make(*values).psf.requires_grad
    single = make(*(torch.tensor(value, requires_grad=True) for value in values)).psf
    torch.testing.assert_close(single, make(*values).psf, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MADE if "gaussian" not in name and name != "sinc"])
def test_nothing_jumps_where_the_psf_grows(name):
    """Sizes change somewhere on the way; PSFs do not."""
    make, values = MADE[name]
    step = values[0] / 400
    psfs = [make(values[0] + step * i, *values[1:]).psf for i in range(401)]
    assert len({tuple(psf.shape) for psf in psfs}) > 1
    psfs = torch.stack([padded(psf, 31) for psf in psfs])
    assert float((psfs[1:] - psfs[:-1]).abs().max()) <= 2 * step


def test_a_gaussian_grows_in_small_steps():
    below, above = gaussian_blur(0.5 - 1e-9).psf, gaussian_blur(0.5 + 1e-9).psf
    assert (below.shape, above.shape) == ((5, 5), (7, 7))
    assert float((padded(below, 7) - above).abs().max()) <= math.exp(-8) * float(below.max())


def test_a_search_by_gradient_finds_sigma():
    """What the derivatives are for: the blur of one image from its measurement."""
    x, sigma = numbers(1, 1, 16, 16), torch.tensor(0.8, requires_grad=True)
    y = gaussian_blur(1.7)(x)
    optimiser = torch.optim.Adam([sigma], 0.05)
    for _ in range(120):
        optimiser.zero_grad()
        (gaussian_blur(sigma)(x) - y).square().mean().backward()
        optimiser.step()
    assert float(sigma.detach()) == pytest.approx(1.7, abs=0.01)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: gaussian_blur(0.0), ValueError, "gaussian_blur sigma: expected a finite number above 0, got 0.0"),
        (lambda: gaussian_blur(torch.tensor(-1.0)), ValueError, "gaussian_blur sigma"),
        (lambda: gaussian_blur(1.0, ratio=math.nan), ValueError, "gaussian_blur ratio"),
        (lambda: gaussian_blur(1.0, angle=math.inf), ValueError, "gaussian_blur angle: expected a finite number, got inf"),
        (lambda: gaussian_blur("2"), TypeError, "gaussian_blur sigma: expected a number or a tensor of shape"),
        (lambda: gaussian_blur(torch.ones(1)), TypeError, r"float tensor of shape \(\), got torch.float32 of \(1,\)"),
        (lambda: gaussian_blur(torch.tensor(1)), TypeError, "got torch.int64"),
        (lambda: motion_blur(-1.0), ValueError, "motion_blur length"),
        (lambda: motion_blur(1.0, math.nan), ValueError, "motion_blur angle"),
        (lambda: trajectory_blur(0.0), ValueError, "trajectory_blur length"),
        (lambda: trajectory_blur(1.0, bend=math.inf), ValueError, "trajectory_blur bend"),
        (lambda: trajectory_blur(1.0, seed=-1), ValueError, "trajectory_blur seed"),
        (lambda: defocus(0.0), ValueError, "defocus radius"),
        (lambda: box_blur(0), ValueError, "box_blur size"),
        (lambda: box_blur(2.5), TypeError, "box_blur size: expected an integer, got 2.5"),
        (lambda: sinc_blur(3.2), ValueError, r"sinc_blur: expected cutoff in \(0, pi\]"),
        (lambda: sinc_blur(1.0, 4), ValueError, "sinc_blur"),
        (lambda: sinc_blur(1.0, -1), ValueError, "sinc_blur"),
    ],
)
def test_mistakes(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_what_an_operator_says_of_itself():
    assert repr(gaussian_blur(1.0, boundary="zero")) == "Blur(psf=9x9, boundary=zero)"
    assert isinstance(gaussian_blur(1), Blur)
