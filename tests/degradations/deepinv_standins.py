"""Stand-ins for deepinv, which cannot be imported without torchvision.

They have what the bridge uses of ``deepinv.physics`` 0.5.0: names, signatures, where random streams and parts are kept.
"""

import torch
from torch import nn


class ZeroNoise(nn.Module):
    """The noise of operators that have none."""

    def forward(self, y):
        return y


class Photons(nn.Module):
    """A noise that draws from the global stream."""

    def forward(self, y):
        return torch.poisson(50 * y.clamp(min=0)) / 50


class GaussianNoise(nn.Module):
    """Draws from a stream of its own, which it replaces by a copy at every call, or else from the global one."""

    def __init__(self, sigma, rng=None):
        super().__init__()
        self.register_buffer("sigma", torch.tensor(sigma))
        self.rng = rng

    def forward(self, y):
        if self.rng is not None:
            state = self.rng.get_state()
            self.rng = torch.Generator(y.device)
            self.rng.set_state(state)
        return y + torch.empty_like(y).normal_(generator=self.rng) * self.sigma[(...,) + (None,) * (y.dim() - 1)]


class Physics(nn.Module):
    """Calls are sensor(noise(A(x)))."""

    def __init__(self, A=lambda x: x, noise_model=None, sensor_model=lambda y: y):
        super().__init__()
        self.noise_model = ZeroNoise() if noise_model is None else noise_model
        self.sensor_model = sensor_model
        self.forw = A

    def A(self, x):
        return self.forw(x)

    def forward(self, x):
        return self.sensor_model(self.noise_model(self.A(x)))


class LinearPhysics(Physics):
    """With the transpose, and a buffer that says where it is."""

    def __init__(self, A=lambda x: x, A_adjoint=None, img_size=None, noise_model=None, device="cpu"):
        super().__init__(A, noise_model)
        self.A_adj, self.img_size = A_adjoint, img_size
        self.register_buffer("_device_holder", torch.tensor(0.0), persistent=False)
        self.to(device)

    def A_adjoint(self, y):
        return self.A_adj(y)


class Masking(LinearPhysics):
    """Keeps every second column."""

    def __init__(self, width=6, **arguments):
        super().__init__(**arguments)
        self.register_buffer("mask", (torch.arange(width) % 2).float())

    def A(self, x):
        return self.mask * x

    A_adjoint = A


class Spectrum(LinearPhysics):
    """The unitary Fourier transform; its adjoint gives images of complex numbers."""

    def A(self, x):
        return torch.fft.fft2(x, norm="ortho")

    def A_adjoint(self, y):
        return torch.fft.ifft2(y, norm="ortho")


class TensorList:
    """A list of tensors that need not be of one shape."""

    def __init__(self, x):
        self.x = list(x)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, item):
        return self.x[item]


class StackedLinearPhysics(LinearPhysics):
    """Several operators of one image, kept in a plain list."""

    def __init__(self, physics_list):
        super().__init__()
        self.physics_list = list(physics_list)

    def A(self, x):
        return TensorList([part.A(x) for part in self.physics_list])

    def A_adjoint(self, y):
        return sum(part.A_adjoint(values) for part, values in zip(self.physics_list, y, strict=True))

    def forward(self, x):
        return TensorList([part(x) for part in self.physics_list])
