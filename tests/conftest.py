"""Fixtures that the tests share."""

import logging
import os
from pathlib import Path

import pytest
import torch

# Several threads gain nothing on networks this small, and on busy cores they wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _package_log_reaches_caplog():
    """Undo what setup_logging of a command under test, or of one that a fixture of its module ran, did to the package's
    logger."""
    _reset_log()
    yield
    _reset_log()


def _reset_log():
    logger = logging.getLogger("lib")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference figures and real photographs, named by SSDS_SHARED; tests that need it skip without."""
    folder = os.environ.get("SSDS_SHARED")
    if not folder:
        pytest.skip("SSDS_SHARED is not set")
    return Path(folder)
