"""Which layers of a raw ONNX graph become int8, and making them so.

The rule was found on five detectors of blood cells (SSD, FSSD, RFB, FPN and YOLO on MobileNet v2, 240 x 320) by the
noise that int8 adds to their raw outputs, 24 to 31 dB below loc and 35 to 38 dB below conf, since mAP moved by chance:

- int8 are convolutions, and what hands their maps on to other convolutions (CHAINED), so that maps stay int8 between
  them: with convolutions alone loc is 1.5 to 4 dB noisier, as maps are rounded more often, and the file is slower.
- Float are the convolutions that see the image, which saves 0.3 to 2 dB and costs no time that could be measured;
- and those that predict boxes and classes.  That changes the noise by less than 0.1 dB and costs 0.1 to 0.6 MB, but
  in int8 the scores of a level could only take 256 values, and detections would be ranked by chance;
- and everything else: normalisation, L2 norms, gates of memories, decoding and NMS.
- Weights have 7 bits and a scale for each channel, without which the noise is 0.3 to 1.5 dB more.  The 8th bit is worth
  1 dB, but products of 8 bits overflow on x86 processors without VNNI, where the same file would find something else
  than where it was scored.
- Ranges are the whole ones, minmax.  Percentiles saved 0.4 to 1.2 dB in loc, and -0.4 to 0.4 dB in conf, and entropy
  0.3 dB, for more than ten times the time.  A hundred images are more than enough, three gave the same noise.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .onnx_metadata import require

METHODS = ("minmax", "percentile", "entropy")
CHAINED = ("Conv", "Relu", "Clip", "LeakyRelu", "Add", "Concat", "MaxPool", "Resize")
PREDICTED = ("loc", "conf")
PERCENTILE = 99.99

Feed = dict[str, np.ndarray]


class _Reader:
    """The inputs that calibration runs the graph on, in ranges as quantize_static asks for them."""

    def __init__(self, feeds: list[Feed]):
        self._feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        """The next inputs are those from start_index to before end_index."""
        self._rest = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Feed | None:
        """The next input; None behind the last."""
        return next(self._rest, None)


def quantize_graph(model, feeds: list[Feed], method: str):
    """A copy of a raw graph (onnx.ModelProto) with the layers above in int8, the ranges of whose maps are those that
    `feeds` give: inputs by name, for one run each.

    method: one of METHODS.  minmax takes the whole range, percentile leaves out the outermost 0.01 % of the values,
    entropy what the distribution can spare.
    """
    require("onnxruntime")
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    onnx = require("onnx")
    methods = dict(zip(METHODS, ("MinMax", "Percentile", "Entropy"), strict=True))
    with tempfile.TemporaryDirectory(prefix="quantize_") as folder, _quiet():
        given, before, after = (Path(folder) / f"{name}.onnx" for name in ("given", "before", "after"))
        onnx.save(model, str(given))
        quant_pre_process(str(given), str(before), skip_symbolic_shape=True)
        ort.quantize_static(
            str(before),
            str(after),
            _Reader(feeds),
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=list(CHAINED),
            per_channel=True,
            reduce_range=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            nodes_to_exclude=float_layers(onnx.load(str(before)).graph),
            calibrate_method=getattr(ort.CalibrationMethod, methods[method]),
            extra_options=_options(method),
        )
        return _tidy(onnx.load(str(after)))


def _options(method: str) -> dict:
    if method == "minmax":
        return {}
    # One input at a time: a histogram is made of every map, and those of all inputs do not fit into memory.
    return {"CalibStridedMinMax": 1, "CalibPercentile": PERCENTILE}


def _tidy(model):
    """The model without what onnxruntime notes about its own steps, and without domains that it lists unused, which
    other runtimes may stumble over."""
    del model.metadata_props[:]
    used = {"", *(node.domain for node in model.graph.node)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def float_layers(graph) -> list[str]:
    """The names of the convolutions of a graph that stay in float: the first ones behind the images, and the last ones
    before loc and conf."""
    makers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    first = _nearest_convolutions([graph.input[0].name], lambda name: readers.get(name, ()), lambda node: node.output)
    last = _nearest_convolutions(
        PREDICTED, lambda name: [makers[name]] if name in makers else (), lambda node: node.input
    )
    return sorted({node.name for node in (*first, *last)})


def _nearest_convolutions(names: Iterable[str], nodes_at, names_of) -> Iterator:
    """The first convolutions on all ways from some values, in the direction that the two functions give."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in nodes_at(name):
            if node.op_type == "Conv":
                yield node
            else:
                waiting.extend(names_of(node))


def num_int8_layers(model) -> tuple[int, int]:
    """(convolutions in int8, all convolutions) of a quantised graph."""
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    return sum(makers.get(name) == "DequantizeLinear" for name in weights), len(weights)


@contextlib.contextmanager
def _quiet():
    """Without what onnxruntime's quantisation prints and logs about itself."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
