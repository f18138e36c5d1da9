"""From the configuration to batches: create_records opens a data set, create_loader reads its images."""

import logging
import os

import torch

from ..config import update_derived
from ..utils.distributed import rank, world_size
from ..utils.errors import UserError
from . import coco, coco_vid, imagenet_vid, voc, yolo  # noqa: F401  register their kinds
from .clip_loader import ClipLoader
from .detection import DATASETS, DetectionDataset, DetectionRecords
from .image_cache import with_cache
from .inspection import Checks
from .lanes import LaneSampler, VideoOrderSampler
from .mixing import MixingTransform
from .sampler import EpochBatchSampler, class_shares, repeat_factors
from .shares import share_of
from .split import SplitPlan
from .transforms import create_transforms
from .video_breaks import cut_into_videos

logger = logging.getLogger(__name__)

MAX_AUTO_WORKERS = 8


def create_records(cfg, phase: str, class_names=()) -> DetectionRecords:
    """The annotations that `phase` (train, eval, test, visualize) works on.

    class_names overrules DATASET.CLASSES, for a model whose classes are already known.  Raises UserError for anything
    that is missing or wrong in the data set.
    """
    data = cfg.DATASET
    key, sets, role = _choose_sets(data, phase)
    roots = [data.DATASET_DIR] if isinstance(data.DATASET_DIR, str) else list(data.DATASET_DIR)
    if not roots:
        raise UserError("DATASET.DATASET_DIR: no folder is given")
    parse = DATASETS.get(data.DATASET, "DATASET.DATASET")
    plan = SplitPlan(tuple(data.SPLIT), cfg.SEED, cfg.EXP_DIR)
    checks = Checks(data.ON_BAD, data.EXIF, cfg.EXP_DIR)
    records = parse(roots, sets, role, tuple(class_names) or tuple(data.CLASSES), plan, f"DATASET.{key}", checks)
    if data.DATASET == "customRNN":
        records = _cut(cfg, phase, records)
    objects = len(records.labels)
    videos = f" in {len(records.videos)} video{'s' * (len(records.videos) > 1)}" if records.is_video else ""
    logger.info("%s: %d images%s, %d objects of %d classes from %s", phase, len(records), videos, objects,
                len(records.class_names), records.name)  # fmt: skip
    counts = records.num_objects_per_class()
    missing = [name for name, count in zip(records.class_names, counts, strict=True) if count == 0]
    if phase == "train" and missing:
        logger.warning("%s holds no object of %s", records.name, ", ".join(missing))
    return records


def _cut(cfg, phase: str, records: DetectionRecords) -> DetectionRecords:
    """The images of customRNN as frames of videos where MODEL.RNN or TEST.VIDEO_BREAK asks for them, else stills."""
    if phase == "train":
        return cut_into_videos(records, (), cfg.MODEL.RNN.FRAMES_IN_VIDEO) if cfg.MODEL.RNN.IN_USE else records
    breaks = cfg.TEST.VIDEO_BREAK
    return cut_into_videos(records, breaks) if cfg.MODEL.RNN.IN_USE or breaks else records


def _choose_sets(data, phase: str):
    """(key, image sets or None, role) of a phase."""
    if phase == "train":
        return "TRAIN_SETS", data.TRAIN_SETS, "train"
    if phase != "eval":
        return "TEST_SETS", data.TEST_SETS, "test"
    if data.EVAL_SETS:
        return "EVAL_SETS", data.EVAL_SETS, "eval"
    if not data.TRAIN_SETS and not data.TEST_SETS:
        return "EVAL_SETS", None, "eval"
    logger.warning("DATASET.EVAL_SETS is not set: the images of TEST_SETS choose the best checkpoint")
    return "TEST_SETS", data.TEST_SETS, "test"


def check_num_classes(cfg, class_names):
    """Set MODEL.NUM_CLASSES and what is derived from it by the class names; UserError if another number is given."""
    counted, given = len(class_names) + 1, cfg.MODEL.NUM_CLASSES
    if given is not None and given != counted:
        raise UserError(
            f"MODEL.NUM_CLASSES: {given} given, but the data set has {counted - 1} classes and the background, "
            f"{counted}: {', '.join(class_names)}; leave the key out to have it counted"
        )
    cfg.MODEL.NUM_CLASSES = counted
    update_derived(cfg)


def create_loader(cfg, phase: str, records: DetectionRecords | None = None, clips: bool | None = None) -> ClipLoader:
    """The batches of `phase`: augmented and shuffled for train, plain and in order for eval, test and visualize.

    clips: whether training sees clips of MODEL.RNN.BACKPROP_STEPS frames of videos, or shuffled stills; None is clips
    where the records are videos and MODEL.RNN.IN_USE.  Other phases show videos side by side, a frame of each at a
    time.  UserError for clips of stills, and for options of stills where training shows none.
    """
    train = phase == "train"
    records = create_records(cfg, phase) if records is None else records
    go_on = cfg.DATASET.ON_BAD != "fail"
    dataset = DetectionDataset(records, create_transforms(cfg, train), cfg.SEED, stand_in=train and go_on)
    if not train:
        num_rows = cfg.TEST.BATCH_SIZE
        sampler = (
            VideoOrderSampler(records, num_rows) if records.is_video else EpochBatchSampler(len(records), num_rows)
        )
    elif (records.is_video and cfg.MODEL.RNN.IN_USE) if clips is None else clips:
        sampler = _create_lanes(cfg, records)
    else:
        _mix(dataset, cfg)
        sampler = EpochBatchSampler(
            len(records), whole_batch(cfg), cfg.DATASET.SHUFFLE, cfg.SEED, drop_last=True, endless=True,
            repeats=_image_repeats(cfg.DATASET, records), image_sizes=cfg.TRAIN.IMAGE_SIZES,
        )  # fmt: skip
    on_gpu = torch.cuda.is_available() and not cfg.DEVICE.startswith("cpu")
    workers = num_workers(cfg.DATASET.NUM_WORKERS)
    # The rows of a batch must not shift under the state of a video.
    leave_out = go_on and not train and not records.is_video
    if train and sampler.num_images < world_size():
        raise UserError(f"{records.name}: {sampler.num_images} images cannot be shared by {world_size()} processes")
    sampler = share_of(sampler, train, rank(), world_size())
    return ClipLoader(dataset, sampler, workers, pin_memory=on_gpu, leave_out=leave_out)


def whole_batch(cfg, clips: bool = False) -> int:
    """Images, or with `clips` videos, of a training batch of all processes together; UserError where that is less than
    one for each of them."""
    key, size = "TRAIN.BATCH_SIZE", cfg.TRAIN.BATCH_SIZE
    if clips:
        key, size = "MODEL.RNN.BATCH_SIZE", cfg.MODEL.RNN.BATCH_SIZE
    if cfg.TRAIN.BATCH_PER_PROCESS:
        return size * world_size()
    if size < world_size():
        raise UserError(
            f"{key}: {size} given, which is shared by {world_size()} processes: give at least {world_size()}, or "
            "TRAIN.BATCH_PER_PROCESS True"
        )
    return size


def keep_images(cfg, records: DetectionRecords) -> DetectionRecords:
    """Training records whose images DATASET.CACHE keeps, if it is to."""
    if not cfg.DATASET.CACHE:
        return records
    sizes = [cfg.MODEL.IMAGE_SIZE, *cfg.TRAIN.IMAGE_SIZES]
    least = [cfg.DATASET.CACHE_SCALE * max(sides) for sides in zip(*sizes, strict=True)]
    return with_cache(records, cfg.DATASET.CACHE, least)


def _create_lanes(cfg, records: DetectionRecords) -> LaneSampler:
    """The sampler of training clips."""
    data, rnn = cfg.DATASET, cfg.MODEL.RNN
    if not records.is_video:
        raise UserError(f"MODEL.RNN.IN_USE: {records.name} holds stills, but clips are made of videos")
    for_stills = [f"DATASET.{key}" for key in ("MOSAIC", "MIXUP") if data[key]]
    for_stills += ["DATASET.SAMPLING"] if data.SAMPLING != "uniform" else []
    if for_stills and not rnn.USE_LSTM_AFTER_EPOCH:
        raise UserError(
            f"{for_stills[0]}: {data[for_stills[0].partition('.')[2]]} given, but it is for stills, and training shows "
            "clips of videos alone (MODEL.RNN.IN_USE); leave it out, or begin with epochs on stills "
            "(MODEL.RNN.USE_LSTM_AFTER_EPOCH)"
        )
    if for_stills:
        logger.info("clips of videos are shown without %s", ", ".join(for_stills))
    return LaneSampler(
        records, rnn.BACKPROP_STEPS, whole_batch(cfg, clips=True), rnn.FRAMES_IN_VIDEO, data.SHUFFLE, cfg.SEED,
        endless=True, image_sizes=cfg.TRAIN.IMAGE_SIZES,
    )  # fmt: skip


def _mix(dataset: DetectionDataset, cfg):
    """Give the data set mosaic and mixup, as far as the configuration asks for them."""
    data, transform = cfg.DATASET, dataset.transform
    if data.MOSAIC or data.MIXUP:
        mixing = MixingTransform(transform, data.MOSAIC, data.MIXUP, dataset.draw_other)
        dataset.mix(mixing, cfg.TRAIN.MAX_EPOCHS - data.PLAIN_EPOCHS)


def _image_repeats(data, records: DetectionRecords):
    """How often each image comes in an epoch by DATASET.SAMPLING; None is once each."""
    if data.SAMPLING == "uniform":
        return None
    if data.SAMPLING == "repeat_factor":
        return repeat_factors(records, data.REPEAT_THRESHOLD)
    weights, names = data.CLASS_WEIGHTS, records.class_names
    if weights and (len(weights) != len(names) or not sum(weights)):
        raise UserError(
            f"DATASET.CLASS_WEIGHTS: {list(weights)} given; it takes one weight for each of the {len(names)} classes "
            f"{', '.join(names)}, at least one above 0"
        )
    return class_shares(records, weights)


def num_workers(wanted) -> int:
    """The number of worker processes: 'auto' leaves a core to the training process and stops at eight."""
    if wanted != "auto":
        return int(wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_AUTO_WORKERS, cores - 1))
