"""Where a test keeps its picture."""

import pytest


@pytest.fixture
def file(tmp_path):
    return tmp_path / "picture.png"
