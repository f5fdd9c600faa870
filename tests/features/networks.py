"""Networks of the published shapes with weights that nobody trained, in torchvision's numbering."""

import torch
from torch import nn


def vgg16():
    layers, width = [], 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for after in stage:
            layers += [nn.Conv2d(width, after, 3, padding=1), nn.ReLU(inplace=True)]
            width = after
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def alexnet():
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
    )


NETWORKS = {"vgg": vgg16, "alex": alexnet}


def seeded(net):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return NETWORKS[net]().eval()


def untrained(net, path):
    torch.save({f"features.{name}": value for name, value in seeded(net).state_dict().items()}, path)
    return path
