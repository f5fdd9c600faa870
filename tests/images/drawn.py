"""What is drawn, and how a message that refuses a picture is judged."""

import numpy as np
import pytest
import torch

from pulse_framework.images import ReadError, peek, read_image, to_tensor

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
TRUTH = torch.from_numpy(RGB).movedim(-1, 0) / 255


def close(a, b, atol=1e-6):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float32), rtol=0, atol=atol)


def refused(path, words, *readers):
    for reader in readers or (read_image, peek, to_tensor):
        with pytest.raises(ReadError) as caught:
            reader(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        for word in ("expected", "got", ";", words):
            assert word in message
