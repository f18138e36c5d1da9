"""How the libraries say that the machine has too little memory."""

import errno

import cv2
import torch

TELLTALES = (
    "can't allocate memory",
    "unable to allocate shared memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What stands in the RuntimeErrors of torch that have no type of their own."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, that of the host or of a GPU."""
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or isinstance(error, OSError)
        and error.errno == errno.ENOMEM
        or isinstance(error, cv2.error)
        and getattr(error, "code", None) == cv2.Error.StsNoMem
        or isinstance(error, RuntimeError)
        and any(words in str(error) for words in TELLTALES)
    )
