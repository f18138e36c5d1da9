"""ImageNet VID as it is unpacked: the kind imagenet_vid of DATASET.DATASET."""

import logging
from dataclasses import replace

from ..utils.class_names import IMAGENET_VID_CLASSES, IMAGENET_VID_NAMES
from ..utils.errors import UserError
from .assembly import ClassTable, as_videos, build_records, check_any_known
from .detection import DATASETS, DetectionRecords
from .facts import FileFacts
from .inspection import Checks, Findings
from .split import NO_PLAN
from .vid_layout import VidFolder, open_vid_folders
from .voc_layout import choose_sets
from .voc_xml import Annotation

logger = logging.getLogger(__name__)

SYNONYMS = dict(zip(IMAGENET_VID_CLASSES + IMAGENET_VID_NAMES, IMAGENET_VID_NAMES + IMAGENET_VID_CLASSES, strict=True))
"""The name of every synset, and the synset of every name."""

USUAL_SETS = {"train": "train", "eval": "val", "test": "val"}
NOTHING_SAID = Annotation([], [], [], [], None, "", [], [])
MANY_FRAMES = 100_000
"""From so many on, the first look at the files takes minutes."""

_WHERE = "DATASET.TRAIN_SETS"
_CHECKS = Checks()


@DATASETS.register("imagenet_vid")
def read_imagenet_vid(roots, sets, role, class_names=(), plan=NO_PLAN, where=_WHERE, checks=_CHECKS):
    """Videos of ImageNet VID 2015 as DetectionRecords; arguments as voc.read_custom, the plan is not used.

    Without class_names the classes are the thirty of the challenge; the annotations may call these by synset or name.
    Corners are 0-based pixels, as in the XML files.  Frames without an XML file hold no objects.  Without sets, train
    is for training and val for the rest; test, whose annotations are not public, can be named.
    """
    facts, findings = FileFacts(checks.folder), Findings(checks, role)
    classes = ClassTable(class_names or IMAGENET_VID_NAMES, synonyms=SYNONYMS)
    folders = open_vid_folders(roots)
    chosen = _choose(folders, sets, role, where)
    frames = {folder: {} for folder, _ in chosen}
    for folder, split in dict.fromkeys(chosen):
        folder.choose(split, frames[folder], findings)
    num_images = sum(len(stems) for snippets in frames.values() for stems in snippets.values())
    num_images += findings.count("missing_image", "outside_folder")
    parts = [_build(folder, snippets, classes, facts, findings) for folder, snippets in frames.items()]
    facts.save()
    names = " + ".join(f"{folder.name}/{split}" for folder, split in chosen)
    records = DetectionRecords.concat(parts)
    check_any_known(records, findings)
    report = findings.conclude(num_images, len(records), names)
    return replace(records, name=names, exif=checks.exif, report=report)


def _choose(folders, sets, role: str, where: str) -> list:
    """[(folder, split)] that are opened for a role."""
    if sets:
        return choose_sets(folders, sets, where, "ImageSets/VID/{}.txt")
    chosen = [(folder, USUAL_SETS[role]) for folder in folders if USUAL_SETS[role] in folder.offers()]
    if not chosen:
        offered = "; ".join(f"{folder.path} has {', '.join(folder.offers()) or 'none'}" for folder in folders)
        raise UserError(f"{where}: no set {USUAL_SETS[role]} for {role}: {offered}; name one")
    return chosen


def _build(folder: VidFolder, snippets: dict, classes: ClassTable, facts: FileFacts, findings: Findings):
    """The records of one folder, of which `snippets` {name: stems} says what is chosen."""
    entries, frames, videos = [], [], []
    for video, (snippet, stems) in enumerate(snippets.items()):
        found, numbers = folder.entries(snippet, stems)
        entries += found
        frames += numbers
        videos += [video] * len(found)
    noted = [entry.annotation for entry in entries if entry.annotation]
    _tell_unannotated(folder, len(entries), len(noted), findings.role)
    if len(entries) >= MANY_FRAMES:
        logger.info("%s: looking at %d frames and %d XML files", folder.path, len(entries), len(noted))
    said = iter(facts.annotations(noted))
    annotations = [next(said) if entry.annotation else NOTHING_SAID for entry in entries]
    images = facts.images([entry.image for entry in entries])
    records, kept = build_records(entries, images, annotations, classes, folder.name, findings)
    return as_videos(records, kept, videos, frames, list(snippets))


def _tell_unannotated(folder: VidFolder, num_frames: int, num_noted: int, role: str):
    if num_frames and not num_noted and role != "test":
        raise UserError(f"{role}: {folder.annotations} holds no XML file for any of {num_frames} frames")
    if num_noted < num_frames:
        logger.warning(
            "%s: %s: %d of %d frames have no XML file and count as frames without objects",
            role, folder.annotations, num_frames - num_noted, num_frames,
        )  # fmt: skip
