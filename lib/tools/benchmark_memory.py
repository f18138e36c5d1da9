"""The peak of the memory that a process takes for one thing."""

import re
import sys
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
OF_GPU = "largest sum of the tensors on the GPU"
GROWTH = "growth of a process of its own, from before the network was built to the peak of the timed runs"
GROWTH_WITH_BUILDING = "growth of a process of its own, from before the network was built to its peak, warm-up included"


class PeakMemory:
    """Bytes that were taken at most between `start` and `read`: on a GPU those of the tensors, else by how much the
    process grew since this was made.  `meaning` says which."""

    def __init__(self):
        self._before, self._device = _resident("VmRSS"), torch.device("cpu")
        self.meaning = GROWTH if _forget_peak() else GROWTH_WITH_BUILDING

    def watch(self, device: torch.device) -> None:
        """Watch the memory of this device."""
        self._device = device
        self.meaning = OF_GPU if device.type == "cuda" else self.meaning

    def start(self) -> None:
        """Forget the peak until here, where the system can."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _forget_peak()

    def read(self) -> int | None:
        """The peak since then; None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        peak = _resident("VmHWM")
        return None if peak is None else peak - self._before


def _resident(name: str) -> int | None:
    """VmRSS, what the process holds now, or VmHWM, the most that it held, in bytes."""
    if STATUS.exists():
        found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _forget_peak() -> bool:
    """Let VmHWM begin anew; whether the system does that."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True
