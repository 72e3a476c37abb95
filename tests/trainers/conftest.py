from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "intel: needs intel-extension-for-pytorch and the torch it was built for"
    )
