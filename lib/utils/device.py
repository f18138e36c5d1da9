"""Which device to run on, and which arithmetic suits it."""

import platform
from functools import cache
from pathlib import Path

import torch

from .errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(name: str) -> torch.device:
    """The device called `name`; auto is the first GPU, or the CPU without one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"DEVICE: '{name}' is no torch device; allowed: auto, cpu, cuda, cuda:0, ...") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"DEVICE: '{name}' was asked for, but torch finds no CUDA device here; allowed: auto, cpu")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"DEVICE: '{name}' cannot be used here ({reason}); allowed: {_usable_devices()}") from error
    return device


def _usable_devices() -> str:
    return ", ".join(["auto", "cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])


@cache
def cpu_multiplies_bf16() -> bool:
    """Whether this processor has bf16 multiplication (AVX-512 BF16 or AMX), without which bf16 is slower than fp32."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not cpuinfo.exists():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(name: str, device: torch.device, training: bool) -> torch.dtype | None:
    """The dtype of automatic mixed precision for 'auto', 'bf16', 'fp16', 'fp32' or 'none'; None is plain fp32.

    auto is bf16 on hardware that multiplies it; else fp16 on a GPU, fp32 on a CPU.  fp16 on a CPU is refused in
    training, where torch has no gradient scaling for it.
    """
    if name in ("fp32", "none"):
        return None
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_multiplies_bf16() else None
    if name == "fp16" and device.type == "cpu" and training:
        raise UserError("TRAIN.AMP: fp16 needs a GPU; on a CPU use auto, bf16 or none")
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype | None):
    """Context in which the network runs in `dtype` (None: unchanged fp32)."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
