"""Reads the tensors of checkpoint files that also hold pickled objects, without running code from them.

Old training scripts pickled whole optimizers beside the weights, which torch's weights-only loader refuses.  Here a
pickle can name whatever it likes: it gets the few functions that rebuild tensors, and for everything else a class that
does nothing.
"""

import mmap
import pickle
import tarfile
import warnings
from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import Tensor


class Placeholder:
    """Stands for an object of a class that is not let in: takes whatever a pickle does to it and keeps nothing."""

    dump_patches = False  # torch asks classes of old files for it, and would write a file into the working folder
    stands_for = ""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        """Nothing."""

    def extend(self, items):
        """Nothing."""


class _Admitted:
    """A function that a pickle may call, in a wrapper that it cannot change."""

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)

    def __setattr__(self, name, value):
        raise pickle.UnpicklingError(f"a pickle tries to set {name} of a function")

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a pickle tries to change a function")


def _rebuild_tensor(storage, offset, size, stride, *_) -> Tensor:
    """A tensor over a storage that torch has read; hooks and metadata are left out."""
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped(), offset, tuple(size), tuple(stride))


def _rebuild_parameter(data, *_) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return data


ADMITTED = {
    ("torch._utils", "_rebuild_tensor"): _Admitted(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Admitted(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Admitted(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Admitted(_rebuild_parameter),
    ("torch", "Size"): _Admitted(torch.Size),
    ("collections", "OrderedDict"): _Admitted(OrderedDict),
}
"""What a pickle may call, by module and name; storages are added by torch itself."""


def load_tensors(path) -> tuple[object, list[str]]:
    """(the content of a torch file on the CPU with placeholders in it, the names of the classes they stand for).

    Both of torch's containers are read, the zip archive and the older one.  Raises pickle.UnpicklingError for the
    containers that are unpacked or run otherwise, and whatever the parsers raise for broken files.
    """
    if tarfile.is_tarfile(path):
        raise pickle.UnpicklingError("an archive of the first versions of torch")
    if mentions(path, b"constants.pkl"):
        raise pickle.UnpicklingError("a program of TorchScript")
    left_out: dict[str, type[Placeholder]] = {}

    class TensorUnpickler(pickle._Unpickler):
        """An unpickler for which nothing exists but ADMITTED and the dtypes of torch.

        In Python, because the one in C takes memory for as many objects as a pickle announces.
        """

        dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}

        def find_class(self, module, name):
            if (module, name) in ADMITTED:
                return ADMITTED[module, name]
            if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
                return vars(torch)[name]
            title = f"{module}.{name}"
            if title not in left_out:
                left_out[title] = type("Placeholder", (Placeholder,), {"stands_for": title})
            return left_out[title]

    def load(file, **options):
        return TensorUnpickler(file, **options).load()

    pickles = SimpleNamespace(Unpickler=TensorUnpickler, load=load, __name__=__name__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch finds odd about a pickle
        # Not weights_only: its unpickler cannot be given placeholders, so that of this module takes its place.
        # latin1: in files of Python 2 the bytes of a NumPy number are text, which is seldom valid UTF-8.
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=pickles, encoding="latin1")
    return content, list(left_out)


def mentions(path, word: bytes) -> bool:
    """Whether the bytes of a file hold a word; torch and zipfile can be made to find different names in one archive."""
    with open(path, "rb") as file:
        if not file.read(1):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(word) >= 0


def holds_tensors(content, depth: int = 3) -> bool:
    """Whether a dictionary has tensors in it or, `depth` levels down, in one of its dictionaries."""
    if not isinstance(content, dict) or depth == 0:
        return False
    return any(isinstance(value, Tensor) or holds_tensors(value, depth - 1) for value in content.values())
