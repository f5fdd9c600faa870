"""The program of FFHQ's authors in its steps, on Pillow and SciPy, as an independent truth; landmarks are indices of pixels."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def quadrilateral(landmarks):
    """Top left, bottom left, bottom right, top right."""
    left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    eyes, e = (left + right) / 2, right - left
    m = (landmarks[48] + landmarks[54]) / 2 - eyes
    x = e - np.flipud(m) * [-1, 1]
    x = x / np.hypot(*x) * max(np.hypot(*e) * 2.0, np.hypot(*m) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eyes + m * 0.1
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def crop(photo, landmarks, size, oversampling=4):
    quad = quadrilateral(landmarks)
    side = 2 * np.hypot(*(quad[3] - quad[0]) / 2)
    shrink = int(np.floor(side / size * 0.5))
    if shrink > 1:
        photo = photo.resize([round(extent / shrink) for extent in photo.size], Image.Resampling.LANCZOS)
        quad, side = quad / shrink, side / shrink
    border = max(round(side * 0.1), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    box = [*np.maximum(low - border, 0), *np.minimum(high + border, photo.size)]
    photo, quad = photo.crop(box), quad - box[:2]
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    pad = [max(value, 0) for value in (*(-low + border), *(high - photo.size + border))]
    if max(pad) > border - 4:
        left, top, right, bottom = pad = np.maximum(pad, round(side * 0.3))
        picture = np.pad(np.float32(photo), ((top, bottom), (left, right), (0, 0)), "reflect")
        h, w, _ = picture.shape
        y, x, _ = np.ogrid[:h, :w, :1]
        mask = np.maximum(
            1 - np.minimum(np.float32(x) / left, np.float32(w - 1 - x) / right),
            1 - np.minimum(np.float32(y) / top, np.float32(h - 1 - y) / bottom),
        )
        picture += (gaussian_filter(picture, [side * 0.02, side * 0.02, 0]) - picture) * np.clip(mask * 3 + 1, 0, 1)
        picture += (np.median(picture, axis=(0, 1)) - picture) * np.clip(mask, 0, 1)
        photo = Image.fromarray(np.uint8(np.clip(np.rint(picture), 0, 255)))
        quad = quad + pad[:2]
    large = (size * oversampling, size * oversampling)
    photo = photo.transform(large, Image.Transform.QUAD, (quad + 0.5).flatten().tolist(), Image.Resampling.BILINEAR)
    return photo.resize((size, size), Image.Resampling.LANCZOS)
