"""Random numbers of a step: the published answers of Philox, moments, and rows that never meet."""

import math

import pytest
import torch

from pulse_framework.search.noise import noise_key, normals, philox

ONES = 0xFFFFFFFF
KNOWN = [  # Random123's kat_vectors for philox4x32-10: counter, key, words
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
LIKE = torch.zeros((), dtype=torch.float64)


def keys(count):
    return torch.stack([noise_key(0, f"image {index}", 0, 0) for index in range(count)])


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter, key, words):
    assert philox(torch.tensor([counter]), torch.tensor([key])).tolist() == [words]


def test_moments_are_those_of_the_distributions():
    """And no number of a row has to do with another, nor with those of the next step."""
    rows, size = 4000, 5
    both = [normals(keys(rows), torch.full((rows,), step), size, LIKE) for step in (0, 1)]
    z, exponential = torch.cat([found for found, _ in both], 1), both[0][1]
    assert float(z.mean(0).abs().max()) < 4 / rows**0.5
    assert float((z.T @ z / rows - torch.eye(2 * size)).abs().max()) < 4.5 * (2 / rows) ** 0.5
    assert float((z**4).mean()) == pytest.approx(3, abs=4 * (96 / z.numel()) ** 0.5)
    for power in (1, 2):
        error = (math.factorial(2 * power) - math.factorial(power) ** 2) ** 0.5 / rows**0.5
        assert float((exponential**power).mean()) == pytest.approx(math.factorial(power), abs=4 * error)
    assert float((z * exponential[:, None]).mean(0).abs().max()) < 4 * (2 / rows) ** 0.5


def test_numbers_depend_on_key_step_and_entry_alone():
    """Bit for bit, in any company; every part of the key counts."""
    steps = torch.tensor([3, 0, 7, 3, 250])
    together, exponential = normals(keys(5), steps, 11, LIKE)
    for row in range(5):
        alone, one = normals(keys(5)[row : row + 1], steps[row : row + 1], 11, LIKE)
        assert torch.equal(together[row], alone[0])
        assert torch.equal(exponential[row], one[0])
    different = [noise_key(0, "a", 0, 0), noise_key(1, "a", 0, 0), noise_key(0, "b", 0, 0), noise_key(0, "a", 1, 0)]
    different.append(noise_key(0, "a", 0, 1))
    assert len({tuple(key.tolist()) for key in different}) == 5


def test_dtype_is_that_asked_for():
    z, exponential = normals(keys(1), torch.zeros(1, dtype=torch.int64), 3, torch.zeros((), dtype=torch.float32))
    assert z.dtype == exponential.dtype == torch.float32
    assert z.shape == (1, 3)
