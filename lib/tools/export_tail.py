"""The tail of an ONNX graph that turns raw outputs into detections, by the rules of PostProcess.

It is built by hand: shapes that depend on the images come from NonMaxSuppression alone, and everything around it stays
in arrays of fixed size, which every runtime can plan for.
"""

import numpy as np

from ..layers.postprocess import PostProcess

RAW_OUTPUTS = ("loc", "conf", "priors")
DETECTIONS = ("boxes", "scores", "labels", "counts")


class _Nodes:
    """Nodes under construction; a method call adds one and returns the name of its output.

    >>> nodes.add("Sub", "a", 1.0)
    """

    def __init__(self):
        self.nodes, self.initializers, self._count = [], [], 0

    def add(self, kind: str, *inputs, outputs: int = 1, name: str | None = None, **attributes):
        """Add a node; inputs are names, or numbers and arrays, which become constants."""
        from onnx import helper

        names = [name] if name else [self._fresh(kind) for _ in range(outputs)]
        inputs = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"tail_node_{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def _constant(self, value) -> str:
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array.astype({"f": np.float32, "i": np.int64}.get(array.dtype.kind, array.dtype))
        self.initializers.append(numpy_helper.from_array(array, self._fresh("constant")))
        return self.initializers[-1].name

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"tail_{kind}_{self._count}"


def append_postprocess(model, rules: PostProcess):
    """A copy of a raw graph (onnx.ModelProto with the outputs loc [B, P, 4], conf [B, P, C] and priors [P, 4]) that
    gives detections instead.

    Its outputs: boxes float32 [B, D, 4] xyxy in the unit square, best first; scores float32 [B, D]; labels int64
    [B, D] from 1; counts int64 [B].  Rows from counts on are zeros.  D is the most detections that `rules` allow, by
    class, or by image where they say.  Other outputs, such as states, stay.
    """
    import onnx

    found = onnx.ModelProto()
    found.CopyFrom(model)
    nodes = _Nodes()
    scores, boxes = _candidates(nodes, rules)
    _keep_best(nodes, _suppress(nodes, scores, boxes, rules), boxes, rules)
    graph = found.graph
    kept = [output for output in graph.output if output.name not in RAW_OUTPUTS]
    del graph.output[:]
    graph.output.extend([*_described_outputs(), *kept])
    graph.node.extend(nodes.nodes)
    graph.initializer.extend(nodes.initializers)
    onnx.checker.check_model(found)
    return found


def _candidates(nodes: _Nodes, rules: PostProcess) -> tuple[str, str]:
    """(scores [B, C - 1, K], boxes [B, C - 1, K, 4]) of the best K priors of each class."""
    add = nodes.add
    scores = add("Sigmoid", "conf") if rules.sigmoid else add("Softmax", "conf", axis=2)
    scores = add("Slice", scores, [1], [np.iinfo(np.int64).max], [2])
    scores = add("Transpose", scores, perm=[0, 2, 1])
    num_priors = add("Gather", add("Shape", "priors"), [0])
    most = add("Min", num_priors, [rules.max_detections])
    scores, rank = add("TopK", scores, most, axis=2, largest=1, sorted=1, outputs=2)
    boxes = _decode(nodes, rules.variance)
    shape = add("Shape", rank)
    flat = add("Unsqueeze", add("Reshape", rank, [0, -1]), [2])
    boxes = add("GatherND", boxes, flat, batch_dims=1)
    return scores, add("Reshape", boxes, add("Concat", shape, [4], axis=0))


def _decode(nodes: _Nodes, variance) -> str:
    """Boxes xyxy [B, P, 4], in the steps of decode_boxes."""
    add = nodes.add
    shift, growth = add("Split", "loc", axis=2, num_outputs=2, outputs=2)
    centre, size = add("Split", "priors", axis=1, num_outputs=2, outputs=2)
    centre = add("Add", centre, add("Mul", add("Mul", shift, float(variance[0])), size))
    size = add("Mul", size, add("Exp", add("Mul", growth, float(variance[1]))))
    low = add("Sub", centre, add("Div", size, 2.0))
    return add("Concat", low, add("Add", low, size), axis=2)


def _suppress(nodes: _Nodes, scores: str, boxes: str, rules: PostProcess) -> str:
    """Scores [B, (C - 1) * K] in which those that NMS or the threshold drop are -1.

    Each class of each image is a batch of one class to NonMaxSuppression, since it has candidates of its own.
    """
    add = nodes.add
    shape = add("Shape", scores)
    one_class = add("Reshape", scores, add("Concat", [-1, 1], add("Gather", shape, [2]), axis=0))
    its_boxes = add("Reshape", boxes, add("Concat", [-1], add("Gather", shape, [2]), [4], axis=0))
    most = add("Gather", shape, [2])
    chosen = add(
        "NonMaxSuppression", its_boxes, one_class, most, [float(rules.iou_threshold)], [float(rules.score_threshold)]
    )
    kept = add("GatherND", one_class, chosen)
    nothing = add("ConstantOfShape", add("Shape", one_class), value=_tensor(-1.0))
    scores = add("ScatterND", nothing, chosen, kept)
    return add("Reshape", scores, add("Concat", add("Gather", shape, [0]), [-1], axis=0))


def _keep_best(nodes: _Nodes, scores: str, boxes: str, rules: PostProcess) -> None:
    """The outputs: over all classes the best scores first, of equal ones the smaller label."""
    add = nodes.add
    every = add("Gather", add("Shape", scores), [1])
    most = add("Min", every, [rules.max_per_image]) if rules.max_per_image else every
    best, rank = add("TopK", scores, most, axis=1, largest=1, sorted=1, outputs=2)
    there = add("GreaterOrEqual", best, 0.0)
    per_class = add("Gather", add("Shape", boxes), [2])
    label = add("Add", add("Div", rank, per_class), 1)
    flat = add("Reshape", boxes, add("Concat", add("Gather", add("Shape", boxes), [0]), [-1, 4], axis=0))
    best_boxes = add("GatherND", flat, add("Unsqueeze", rank, [2]), batch_dims=1)
    best_boxes = add("Clip", best_boxes, 0.0, 1.0) if rules.clip else best_boxes
    add("Where", add("Unsqueeze", there, [2]), best_boxes, 0.0, name="boxes")
    add("Where", there, best, 0.0, name="scores")
    add("Where", there, label, 0, name="labels")
    add("ReduceSum", add("Cast", there, to=7), [1], keepdims=0, name="counts")


def _tensor(value: float):
    from onnx import helper

    return helper.make_tensor("value", 1, [1], [value])


def _described_outputs() -> list:
    from onnx import TensorProto, helper

    kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT}
    shapes = {"boxes": ["batch", "detections", 4], "counts": ["batch"]}
    return [
        helper.make_tensor_value_info(
            name, kinds.get(name, TensorProto.INT64), shapes.get(name, ["batch", "detections"])
        )
        for name in DETECTIONS
    ]
