"""A detector made ready to run: folded, in the precision and layout that suit the device, compiled on request."""

import logging
import os
import shutil
import threading
from collections.abc import Callable

import torch
import torch._inductor.config as inductor
from torch import Tensor, nn
from torch.nn import functional as F

from ..structures import Predictions
from ..utils.device import autocast, device_name
from .folding import fold_norms
from .nets.interleaved import InterleavedBackbone

logger = logging.getLogger(__name__)

COMPILE_WORTH = 2000
"""Images from which on compiling, about a minute on a CPU, is won back."""
OPTIONS = {"default": None, "max": {"max_autotune": True}}
"""Of torch.compile, by mode."""
COMPILERS = ("c++", "g++", "clang++", "cl")


def resolve_compile(choice: str, num_images: int | None, device: torch.device) -> str:
    """The mode, none, default or max, for a MODEL.COMPILE of none, default, max or auto.

    auto compiles for a stream of images without a known end (`num_images` None) and for at least COMPILE_WORTH of them.
    Without a C++ compiler, which torch needs, one line says so and the mode is none.
    """
    if choice == "auto":
        choice = "default" if num_images is None or num_images >= COMPILE_WORTH else "none"
    if choice != "none" and not any(map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS)))):
        logger.info("MODEL.COMPILE: there is no C++ compiler here, so the network runs without being compiled")
        return "none"
    return choice


class InferenceNetwork:
    """Called with uint8 images, gives what the detector predicts, faster than the detector itself.

    It holds a copy of the model without batch norms, with convolutions in `dtype` (None: fp32) and channels last, and
    compiles it where `compile_mode` is default or max; should that fail, one line says so and the copy runs as it is.
    Several threads may call it at once.
    """

    def __init__(self, model: nn.Module, normalize: nn.Module, device, dtype=None, compile_mode: str = "none"):
        self.device, self.dtype, self.compile_mode = torch.device(device), dtype, compile_mode
        self.model = fold_norms(model).to(self.device, memory_format=torch.channels_last).requires_grad_(False)
        self.normalize = normalize.to(self.device)
        self._lock, self._seen, self._compiled = threading.Lock(), set(), {}
        if dtype is not None:  # once, and not at every call by autocast
            for module in self.model.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(dtype)
        if self._is_compiled and isinstance(self.model.backbone, InterleavedBackbone):
            self._compile_pieces()

    @torch.no_grad()
    def __call__(self, pixels: Tensor, state=None, first: Tensor | None = None) -> Predictions:
        """Images [B, 3, H, W] uint8 in the colour order of the configuration, state and first as of the detector."""
        return self._run("network", self._network, self._prepare(pixels), state, first)

    @torch.no_grad()
    def backbone(self, pixels: Tensor) -> list[Tensor]:
        """The maps that the base alone makes of images without a past."""
        return self._run("backbone", self._backbone, self._prepare(pixels))

    @torch.no_grad()
    def run_in_parts(self, pixels: Tensor, state, part: Callable, first: Tensor | None = None) -> Predictions:
        """The same as a call with "normalize", "backbone", "neck" and "head" each inside the context part(name);
        compiled it is one part, "network"."""
        if self._is_compiled:
            with part("network"):
                return self(pixels, state, first)
        pixels = self._prepare(pixels)
        with self._precision():
            with part("normalize"):
                images = self.normalize(pixels)
            return self.model.run_in_parts(images, state, part, first)

    def warm_up(self, pixels: Tensor, state=None, first: Tensor | None = None) -> None:
        """Compile what a call with such images will need, if that was not done yet, so that no clock counts it."""
        if self._is_compiled and self._key("network", self._prepare(pixels), state, first) not in self._seen:
            self(pixels, state, first)

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.dtype, "fp32")

    def describe(self) -> str:
        """Precision, compilation, layout and device in words."""
        compiled = f"compiled ({self.compile_mode})" if self._is_compiled else "not compiled"
        return f"{self.precision}, {compiled}, channels last, {device_name(self.device)}"

    @property
    def is_recurrent(self) -> bool:
        """Whether what it finds in a frame depends on the frames before it."""
        return self.model.is_recurrent

    @property
    def _is_compiled(self) -> bool:
        return self.compile_mode != "none"

    def _network(self, pixels: Tensor, state, first) -> Predictions:
        with self._precision():
            return self.model(self.normalize(pixels), state, first)

    def _backbone(self, pixels: Tensor) -> list[Tensor]:
        with self._precision():
            features, _ = self.model.backbone(self.normalize(pixels), None, self.model.neck.inserts())
            return self.model.backbone.maps_of(features)

    def _precision(self):
        return autocast(self.device, self.dtype)

    def _prepare(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)

    def _run(self, name: str, function: Callable, pixels: Tensor, *others):
        """The function, compiled where that is asked for; the first call of each kind compiles, one at a time."""
        if not self._is_compiled:
            return function(pixels, *others)
        count, pixels = len(pixels), self._fill_up(name, pixels, *others)
        key = self._key(name, pixels, *others)
        if key in self._seen:
            return _keep_images(self._compiled_form(name, function)(pixels, *others), count)
        with self._lock:
            if key not in self._seen and self._is_compiled:
                self._try(name, function, pixels, *others)
                self._seen.add(key)
        return self._run(name, function, pixels[:count], *others)

    def _try(self, name: str, function: Callable, *inputs) -> None:
        """Compile for such inputs; back to the plain function, for good, where that fails."""
        try:
            self._compiled_form(name, function)(*inputs)
        except Exception as error:  # of a compiler, a linker, a missing header: none is worth more than a line
            function(*inputs)  # what is wrong with the inputs is not the compiler's fault, and ends here
            self.compile_mode = "none"
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            logger.warning("MODEL.COMPILE: compiling failed (%s); the network runs without", reason)

    def _compiled_form(self, name: str, function: Callable) -> Callable:
        if isinstance(self.model.backbone, InterleavedBackbone):
            return function  # its pieces are compiled
        if name not in self._compiled:
            self._compiled[name] = self._compile(function)
        return self._compiled[name]

    def _compile(self, function: Callable) -> Callable:
        # Freezing takes the weights, which stay as they are, for constants and lays them out for the processor.  As one
        # of the options it comes too late to work; for the whole process it touches nothing that has gradients.
        inductor.freezing = True
        return torch.compile(function, dynamic=False, options=OPTIONS[self.compile_mode])

    def _compile_pieces(self) -> None:
        """Compile what lies on both sides of the choice between two extractors, which is made anew for every frame."""
        backbone, neck = self.model.backbone, self.model.neck
        for owner, name in ((backbone, "extract"), (backbone, "extract_small"), (neck, "remember"), (neck, "grow")):
            setattr(owner, name, self._compile(getattr(owner, name)))

    def _fill_up(self, name: str, pixels: Tensor, state=None, first=None) -> Tensor:
        """The images of a smaller last batch with empty ones behind them, up to a size that is compiled already."""
        if state is not None or first is not None or self.is_recurrent:
            return pixels
        sizes = [key[1][0] for key in tuple(self._seen) if key[0] == name and key[1][1:] == pixels.shape[1:]]
        larger = [size for size in sizes if size >= len(pixels)]
        missing = min(larger) - len(pixels) if larger else 0
        return F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else pixels

    @staticmethod
    def _key(name: str, pixels: Tensor, state=None, first=None) -> tuple:
        return name, tuple(pixels.shape), state is None, None if first is None else tuple(first.shape)


def _keep_images(output, count: int):
    """What was made of the first `count` images."""
    if isinstance(output, Predictions):
        return output._replace(loc=output.loc[:count], conf=output.conf[:count])
    return [part[:count] for part in output]
