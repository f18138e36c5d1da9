"""The speed of a detector on a video that arrives frame by frame, in all and by part."""

import logging

import torch

from ..modeling.inference import InferenceNetwork
from ..utils.meters import PartTimer
from .evaluate import Evaluator, repeatable_draws

logger = logging.getLogger(__name__)

WARM_UP_FRAMES = 10
MAX_FRAMES = 300


@torch.no_grad()
def measure_streaming(network: InferenceNetwork, records, transform, evaluator: Evaluator) -> dict[str, float]:
    """Run the first frames of the first videos one at a time, with state; {"fps", and milliseconds a frame: "read",
    "prepare", "normalize", "backbone", "neck" (with the memory), "head", "postprocess"}, and log them; a compiled
    network is one part, "network".

    fps is that of everything but reading the file, which a camera does not.
    """
    timer, state, video = PartTimer(evaluator.device, enabled=True), None, -1
    count = min(len(records), MAX_FRAMES)
    with repeatable_draws():
        for index in range(count):
            if index == WARM_UP_FRAMES:
                timer.parts.clear()
            before, video = video, records.video_of([index])[0]
            state = _step(network, records, index, transform, evaluator, timer, state if video == before else None)
    frames = max(watch.events for watch in timer.parts.values())
    parts = {name: 1000 * watch.seconds / frames for name, watch in timer.parts.items()}
    fps = 1000 / sum(time for name, time in parts.items() if name != "read")
    logger.info(
        "streaming, one frame at a time (%d frames): %.1f frames/s without reading; ms a frame: %s", frames, fps,
        ", ".join(f"{name} {time:.2f}" for name, time in parts.items()),
    )  # fmt: skip
    return {"fps": fps, **{f"ms_{name}": time for name, time in parts.items()}}


def _step(network: InferenceNetwork, records, index: int, transform, evaluator: Evaluator, timer: PartTimer, state):
    """One frame through all parts of the detector; returns the state after it."""
    with timer.part("read"):
        image = records.read(index)
    with timer.part("prepare"):
        pixels = torch.from_numpy(transform.resize(image)).to(evaluator.device).permute(2, 0, 1)[None]
        sizes = torch.tensor([image.shape[:2]], device=evaluator.device)
    predictions = network.run_in_parts(pixels, state, timer.part)
    with timer.part("postprocess"):
        evaluator.postprocess(predictions, sizes)
    return predictions.state
