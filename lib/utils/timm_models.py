"""The catalogue of timm, an optional package: which networks it has, and what their weights expect of an image."""

import difflib

from .errors import UserError

PREFIX = "timm/"
"""What stands before the name of one of timm's networks in MODEL.NETS."""


def is_timm(net: str) -> bool:
    """Whether a base network is one of timm's."""
    return net.startswith(PREFIX)


def import_timm():
    """The package; UserError where it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"MODEL.NETS: bases that begin with {PREFIX} need the package timm, which cannot be imported ({error}); "
            "'pip install timm' installs it"
        ) from error
    return timm


def find_timm_settings(net: str):
    """timm's record of a network and of its weights (mean, std, url, ...), for 'timm/<name>' or 'timm/<name>.<tag>'.

    Raises UserError with the nearest names for one that timm does not have.
    """
    timm, name = import_timm(), net.removeprefix(PREFIX)
    if not timm.is_model(name):
        architecture, names = name.partition(".")[0], timm.list_models()
        close = difflib.get_close_matches(architecture, names, n=3, cutoff=0.5)
        hint = f"the nearest: {', '.join(PREFIX + n for n in close)}" if close else "timm.list_models() lists its names"
        raise UserError(f"MODEL.NETS: '{net}' is unknown to timm {timm.__version__}; {hint}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [PREFIX + tagged for tagged in timm.list_pretrained(f"{name.partition('.')[0]}.*")]
        raise UserError(f"MODEL.NETS: '{net}' is unknown to timm; allowed: {', '.join(tags) or 'no tags'}") from error
