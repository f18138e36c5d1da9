"""What an exported ONNX file says about itself, and the packages that this takes."""

import json
from pathlib import Path

from ..utils.errors import UserError

FORMAT = 1
EXTRA = "export"


def require(package: str):
    """The module `package`; UserError that says how to install it where it is missing."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"the package {error.name or package} is missing, without which nothing can be exported or checked; "
            "pip install onnx onnxscript onnxruntime"
        ) from None


def write_metadata(model, values: dict) -> None:
    """Put entries into the metadata_props of an onnx.ModelProto, those of the same names replaced; texts as they are,
    everything else as JSON."""
    kept = {entry.key: entry.value for entry in model.metadata_props}
    kept |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    require("onnx").helper.set_model_props(model, kept)


def read_metadata(model) -> dict:
    """The entries of write_metadata, of an onnx.ModelProto."""
    return parse_metadata({entry.key: entry.value for entry in model.metadata_props})


def parse_metadata(entries: dict[str, str]) -> dict:
    """Entries of metadata_props with JSON as what it means."""
    return {key: _parse(value) for key, value in entries.items()}


def load_model(path):
    """The onnx.ModelProto in a file; UserError for what is none."""
    onnx, path = require("onnx"), Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such ONNX file")
    try:
        return onnx.load(str(path))
    except Exception as error:  # a broken file ends in whatever its parser stumbles over
        raise UserError(f"{path}: is no readable ONNX file ({type(error).__name__})") from None


def _parse(value: str):
    try:
        return json.loads(value)
    except ValueError:
        return value
