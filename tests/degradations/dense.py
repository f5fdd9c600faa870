"""The dense matrix of a linear operator, and its norm by two ways."""

import torch


def matrix_of(operator, image_shape):
    """A in float64, (m, n): its columns are what it makes of the images that have a single 1."""
    size = torch.Size(image_shape).numel()
    return operator(torch.eye(size, dtype=torch.float64).reshape(size, *image_shape)).flatten(1).T


def transpose_of(operator, image_shape):
    """What ``adjoint`` says is the transpose of A, (n, m)."""
    shape = operator.measurement_shape(image_shape)
    size = torch.Size(shape).numel()
    return operator.adjoint(torch.eye(size, dtype=torch.float64).reshape(size, *shape), image_shape).flatten(1).T


def norm_of(operator, image_shape, steps=300):
    """The largest singular value by iteration with A and its adjoint."""
    x = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(steps):
        x = operator.adjoint(operator(x / x.norm()), image_shape)
    return float(x.norm().sqrt())


def check_dense(operator, image_shape, expected):
    """A, its adjoint and its norm against a matrix."""
    torch.testing.assert_close(matrix_of(operator, image_shape), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(transpose_of(operator, image_shape), expected.T, rtol=0, atol=1e-12)
    largest = float(torch.linalg.matrix_norm(expected, 2))
    assert abs(norm_of(operator, image_shape) - largest) <= 1e-3 * largest


def check_bits(operator, image_shape):
    """A, its adjoint and its gradient of a row have the same bits alone and in a batch of three."""
    x = torch.rand(3, *image_shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = operator(x)
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(2))
    (together,) = torch.autograd.grad((y * weights).sum(), x)
    back = operator.adjoint(weights, image_shape) if hasattr(operator, "adjoint") else None
    for row in range(3):
        one = x[row : row + 1].detach().clone().requires_grad_()
        z = operator(one)
        (alone,) = torch.autograd.grad((z * weights[row : row + 1].clone()).sum(), one)
        assert torch.equal(z[0], y[row])
        assert torch.equal(alone[0], together[row])
        if back is not None:
            assert torch.equal(operator.adjoint(weights[row : row + 1].clone(), image_shape)[0], back[row])
