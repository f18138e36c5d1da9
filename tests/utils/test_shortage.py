"""Lack of memory is told apart from everything else."""

import cv2
import pytest
import torch

from lib.commands import shortage
from lib.utils.shortage import lacks_memory


def no_memory_of_opencv():
    error = cv2.error("(-4:Insufficient memory) Failed to allocate 900000 bytes in function 'OutOfMemoryError'")
    error.code = cv2.Error.StsNoMem
    return error


@pytest.mark.parametrize(
    "error, wanted",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), "2.50 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes."),
         "4000 bytes"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ""),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), ""),
        (MemoryError("Unable to allocate 3.2 GiB for an array with shape (9, 9)"), "3.2 GiB"),
        (MemoryError(), ""),
        (OSError(12, "Cannot allocate memory"), ""),
        (no_memory_of_opencv(), ""),
    ],
)  # fmt: skip
def test_every_library_is_understood(error, wanted):
    assert lacks_memory(error)
    words = f"out of memory (tried to allocate {wanted}); halve" if wanted else "out of memory; halve"
    assert shortage(error).startswith(words)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), OSError(28, "No space left"), cv2.error("bad argument"),
              ValueError("can't allocate memory")]
)  # fmt: skip
def test_other_errors_are_not(error):
    assert not lacks_memory(error) and shortage(error) == ""
