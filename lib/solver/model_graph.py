"""The graph of a model for TensorBoard's graph page, recorded while an image runs through it."""

import logging
from collections import Counter

import torch
from tensorboardX.proto.attr_value_pb2 import AttrValue
from tensorboardX.proto.graph_pb2 import GraphDef
from tensorboardX.proto.node_def_pb2 import NodeDef
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboardX.proto.versions_pb2 import VersionDef
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from .evaluate import evaluating

logger = logging.getLogger(__name__)


def write_graph(writer, model: nn.Module, image_size, device) -> None:
    """Write the graph of the model for an image of (height, width).  A model whose graph cannot be drawn is told of in
    one line, and nothing else happens."""
    try:
        writer.graph(model_graph(model, torch.zeros(1, 3, *image_size, device=device)))
    except Exception as error:  # whatever a model does in its forward pass, a picture of it is not worth a run
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        logger.warning("TensorBoard shows no graph of the model: %s", reason)


def model_graph(model: nn.Module, images: Tensor) -> GraphDef:
    """The operations of a run on images [B, 3, H, W], grouped as the modules are; of a recurrent model the first frame
    of a video.  What only looks at a tensor in another shape is no operation."""
    recorder = _Recorder()
    recorder.add("images", "Placeholder", (), (images,))
    with torch.no_grad(), evaluating(model), recorder.inside(model), recorder:
        model(images)
    return GraphDef(node=recorder.nodes, versions=VersionDef(producer=22))


class _Recorder(TorchDispatchMode):
    """Makes a node of every operation, named after the module in which it happens."""

    def __init__(self):
        super().__init__()
        self.nodes: list[NodeDef] = []
        self._scopes, self._taken = [], Counter()
        self._makers = WeakTensorKeyDictionary()

    def inside(self, model: nn.Module) -> "_Hooks":
        return _Hooks(model, self._scopes)

    def add(self, name: str, kind: str, sources, results) -> None:
        """A node with the results as its outputs; sources are tensors, of which unknown ones are weights."""
        self._taken[name] += 1
        name = f"{name}_{self._taken[name] - 1}" if self._taken[name] > 1 else name
        makers = dict.fromkeys(self._makers[source] for source in sources if source in self._makers)
        shapes = [
            TensorShapeProto(dim=[TensorShapeProto.Dim(size=side) for side in result.shape]) for result in results
        ]
        node = NodeDef(name=name, op=kind, input=list(makers))
        node.attr["_output_shapes"].CopyFrom(AttrValue(list=AttrValue.ListValue(shape=shapes)))
        self.nodes.append(node)
        for result in results:
            self._makers[result] = name

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outcome = func(*args, **(kwargs or {}))
        sources, results = (
            [x for x in tree_leaves(tree) if isinstance(x, Tensor)] for tree in ((args, kwargs), outcome)
        )
        if func.is_view and sources:
            for result in results:
                if sources[0] in self._makers:
                    self._makers[result] = self._makers[sources[0]]
        elif results and any(source in self._makers for source in sources):
            kind = func.overloadpacket.__name__.strip("_")
            self.add("/".join([*filter(None, self._scopes[-1:]), kind]), kind, sources, results)
        return outcome


class _Hooks:
    """Keeps the name of the module that runs on top of `scopes`, with '/' between its parts."""

    def __init__(self, model: nn.Module, scopes: list[str]):
        self.model, self.scopes, self.handles = model, scopes, []

    def __enter__(self) -> None:
        for name, module in self.model.named_modules():
            scope = name.replace(".", "/")
            self.handles.append(module.register_forward_pre_hook(lambda *_, scope=scope: self.scopes.append(scope)))
            self.handles.append(module.register_forward_hook(lambda *_: self.scopes.pop() and None))

    def __exit__(self, *exception) -> None:
        for handle in self.handles:
            handle.remove()
