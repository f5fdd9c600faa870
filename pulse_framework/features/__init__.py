"""Perceptual distances of images: networks trained on ImageNet, and the distance of what they see (LPIPS)."""

from pulse_framework.features.distance import FeatureDistance
from pulse_framework.features.efficientnet import efficientnet_lite0
from pulse_framework.features.lpips import lpips

__all__ = ["FeatureDistance", "efficientnet_lite0", "lpips"]
