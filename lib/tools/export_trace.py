"""From a detector to a raw ONNX graph."""

import contextlib
import io
import logging
import warnings

import torch

from ..modeling.export_graph import ExportGraph
from ..utils.errors import UserError
from .export_tail import RAW_OUTPUTS
from .onnx_metadata import require

log = logging.getLogger(f"{__package__}.export_trace")

OPSET = 18
INPUT = "images"
LEAST_CELLS = 3
"""Rows and columns of the smallest map while a graph of any size is traced."""


def state_names(count: int) -> tuple[list[str], list[str]]:
    """The names of so many states as inputs and as outputs: h and c of each memory in turn."""
    names = [f"{'hc'[index % 2]}{index // 2}" for index in range(count)]
    return [f"state_{name}" for name in names], [f"next_{name}" for name in names]


def trace(graph: ExportGraph, dynamic_size: bool = False):
    """The onnx.ModelProto of a graph for images of its model's size, or with `dynamic_size` of any.

    Inputs: images uint8 [batch, height, width, 3], and state_h0, state_c0, ... float32 [batch, N, H', W'].  Outputs:
    loc, conf, priors, and next_h0, next_c0, ..., and drift [batch] of interleaved detectors with states.  UserError
    where torch cannot trace it.
    """
    onnx, _ = require("onnx"), require("onnxscript")
    shapes, size = graph.state_shapes(), graph.model.image_size
    if dynamic_size:  # a map with a single cell would be taken for one that always has
        factor = -(-LEAST_CELLS // min(min(map_size) for map_size in graph.prior_rule.map_sizes))
        size = [side * factor for side in size]
    before, after = state_names(len(shapes))
    example = torch.zeros(2, *size, 3, dtype=torch.uint8), *(torch.zeros(2, *shape) for shape in shapes)
    outputs = [*RAW_OUTPUTS, *after, *(["drift"] if shapes and graph.extractor else [])]
    program = _capture(graph, example, dynamic_size)
    with _quiet():
        traced = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=[INPUT, *before], output_names=outputs, verbose=False
        )
    model = onnx.ModelProto()
    model.CopyFrom(traced.model_proto)
    _name_dimensions(model, dynamic_size)
    onnx.checker.check_model(model)
    return model


def _capture(graph: ExportGraph, example: tuple, dynamic_size: bool):
    batch = torch.export.Dim("batch", min=1, max=2**16)
    pixels = {0: batch}
    if dynamic_size:
        pixels |= {1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}
    dynamic = pixels, *([tuple({0: batch} for _ in example[1:])] if len(example) > 1 else [])
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(graph, example, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # of torch's many ways to refuse a network, none is worth more than a line
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        option = "--dynamic-size: " if dynamic_size else ""
        raise UserError(f"{option}torch cannot trace {type(graph.model.neck).__name__}: {reason}") from error


def _name_dimensions(model, dynamic_size: bool) -> None:
    """Call the sizes that may change batch, height, width and num_priors; torch gives them names of its own."""
    graph = model.graph
    dims = graph.input[0].type.tensor_type.shape.dim
    named = {dims[0].dim_param: "batch"}
    if dynamic_size:
        named |= {dims[1].dim_param: "height", dims[2].dim_param: "width"}
    if "" in named:
        kept = ", ".join(name for key, name in named.items() if not key)
        raise UserError(f"{'--dynamic-size: ' * dynamic_size}this network takes one {kept} alone")
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_param = named[dim.dim_param]
    if dynamic_size:
        for output in graph.output[: len(RAW_OUTPUTS)]:
            output.type.tensor_type.shape.dim[0 if output.name == "priors" else 1].dim_param = "num_priors"


@contextlib.contextmanager
def _quiet():
    """Without what the exporter says about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
