"""Every configuration key: its default, its type or choices, and one sentence of meaning.  Read this first.

`SCHEMA` mirrors the YAML files: nested dictionaries whose leaves are `Key`s.  The kinds (how a value is read and
checked) are in KINDS of kinds.py.  Keys of the reference family keep their names and meanings; where a key of a
fork has no effect here, its sentence says so.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key: default value, kind of value, one sentence, and the allowed values where they are few.

    minimum, above, maximum and below bound a number or every number of a list; lengths are the allowed lengths of it.

    Kinds: int, float, bool, str; choice (one of `choices`); choices (a list of them); strs (a list of strings; one
    string stays one where the default is one, else it becomes a list); ints, floats (lists); size ([height, width];
    one number becomes that pair); sizes (a list of those); sets (image sets: a list of 'split' or [year, split]);
    workers (int or auto); levels (nested lists with one entry a feature level, shapes checked by the model builder).
    A kind with a trailing '?' also takes null.
    """

    default: Any
    kind: str
    doc: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    lengths: tuple[int, ...] = ()


PHASES = ("train", "eval", "test", "visualize")

MODEL = {
    "NETS": Key(
        "vgg16",
        "str",
        "Name of the base network: one of those registered in lib/modeling/nets, or timm/NAME for one of the package "
        "timm that returns feature maps.",
    ),
    "SSDS": Key("ssd", "str", "Name of the detector variant, one of those registered in lib/modeling/ssds."),
    "PRETRAINED": Key(
        "",
        "str",
        "Weights of the base, read when a training starts fresh: '' is none, imagenet is torchvision's (timm's for its "
        "networks), else a .pth file, for Darknet also a .weights one, or its http(s) address.  DATASET.COLOR_ORDER, "
        "PIXEL_MEANS and PIXEL_STDS follow the weights then, where they are not given.",
    ),
    "STEM_ACTIVATION": Key(
        "auto",
        "choice",
        "Activation after the first convolution of mobilenet_v2, read by no other base: auto is relu6, as in "
        "torchvision, where PRETRAINED is given, else relu.",
        ("auto", "relu", "relu6"),
    ),
    "BASE_STRUCTURE": Key(
        [1, 2, 3, 4, 3, 3, 1],
        "ints",
        "Blocks per stage of mobilenet_v2_cut; read by no other base.",
        minimum=1,
        lengths=(7,),
    ),
    "DEPTH_MULTIPLIER": Key(1.0, "float", "Channel multiplier of mobilenet_v2_cut; read by no other base.", above=0),
    "IMAGE_SIZE": Key(
        [300, 300], "size", "Height and width of the network's input in pixels; one number means a square.", minimum=1
    ),
    "NUM_CLASSES": Key(
        None, "int?", "Number of classes with the background; null takes it from the data set's class names.", minimum=2
    ),
    "FEATURE_LAYER": Key(
        None,
        "levels?",
        "[tokens, channels]: for each level a layer of the base (its index, or '/16' for the last one of that stride) "
        "or a token ('S' halves the map by a strided layer, '' shrinks it by an unpadded one), and its channels (null: "
        "what the layer has).  fssd takes two such pairs, of the maps it fuses and of its pyramid; yolo, instead of "
        "each token and number, a list of them.  null takes the usual levels of the variant and base.  lib.tools.plan "
        "shows what comes of it.",
    ),
    "STEPS": Key([], "levels", "Pitch of the priors in pixels, [h, w] for each level; empty means 1 / map size."),
    "SIZES": Key(
        [0.2, 0.95],
        "levels",
        "Prior sizes: [h, w] in pixels for each level and, if the last one has the ratio 1, one more at the end, or "
        "two fractions [smallest, largest] spread evenly over the levels.",
    ),
    "ASPECT_RATIOS": Key(
        None,
        "levels?",
        "For each level the list of ratios: 1 gives the two squares, r gives r and 1/r, [w, h] one box of that size; "
        "null is [1, 2, 3] on every level.",
    ),
    "CLIP": Key(True, "bool", "Clamp centre, width and height of every prior to the unit square."),
    "SOURCE_NORM": Key(
        "l2",
        "choice",
        "What the first source of ssd, ssd_lite, dssd, tdm and the dual-path variants goes through: l2 scales every "
        "cell to a learnt length, batch is a batch norm.",
        ("l2", "batch", "none"),
    ),
    "NORM_IN_TRUNK": Key(
        False, "bool", "The base goes on from the first source as SOURCE_NORM leaves it, not from the map before."
    ),
    "EXTRAS_ACTIVATION": Key(
        "relu", "choice", "What follows every extra layer of ssd, ssd_lite, dssd and tdm.", ("relu", "none")
    ),
    "RFB_BLOCK": Key(
        "family",
        "choice",
        "Blocks of rfb and rfb_lite: family has the reference family's, paper the published ones (a third branch; "
        "depthwise ends in rfb_lite).",
        ("family", "paper"),
    ),
    "ALIGN_CORNERS": Key(
        False,
        "bool",
        "Bilinear resizes of fssd and yolo_v3 keep the corners of the map in place, as PyTorch did up to 0.3, when the "
        "reference family's weights were trained.",
    ),
    "NECK_WIDTH": Key(256, "int", "Channels of every level of fpn, bifpn, dssd and tdm.", minimum=1),
    "NECK_REPEATS": Key(3, "int", "Layers of bifpn, each a pass down and up the pyramid.", minimum=1),
    "HEAD": Key(
        "auto",
        "choice",
        "Prediction layers: conv3 and conv1 are one 3x3 or 1x1 convolution a level, separable a depthwise 3x3 before "
        "the 1x1 on all levels but the last, separable_all on all, tower four 3x3 convolutions shared by all levels, "
        "as in RetinaNet; auto is the variant's own.",
        ("auto", "conv3", "conv1", "separable", "separable_all", "tower"),
    ),
    "PRECISION": Key(
        "auto",
        "choice",
        "Arithmetic of inference: auto picks by device (half precision on a GPU, bf16 on a CPU with AMX, else fp32).",
        ("auto", "fp32", "bf16", "fp16"),
    ),
    "COMPILE": Key(
        "auto",
        "choice",
        "Whether torch.compile makes the network of inference faster, after about a minute: auto does for endless "
        "streams, benchmarks and 2000 images or more, max also tries out which kernels are fastest.",
        ("auto", "none", "default", "max"),
    ),
    "HALF_PRECISION": Key(
        True, "bool", "The reference family's form of PRECISION: false asks for fp32, true leaves PRECISION as it is."
    ),
    "NUM_FUSED": Key(3, "int", "Accepted for old files; the number of fused levels follows from FEATURE_LAYER."),
    "RNN": {
        "IN_USE": Key(
            False,
            "bool",
            "Train on clips of consecutive frames with recurrent layers switched on; without it no state is carried.",
        ),
        "USE_LSTM_AFTER_EPOCH": Key(
            0, "int", "Epochs up to this one train on shuffled stills, with the memory switched off.", minimum=0
        ),
        "FREEZE_BASE_EPOCHS": Key(
            0, "int", "Epochs after USE_LSTM_AFTER_EPOCH in which the base network does not learn.", minimum=0
        ),
        "BACKPROP_STEPS": Key(10, "int", "Frames of a training clip, over which gradients flow back.", minimum=1),
        "FRAMES_IN_VIDEO": Key(
            100,
            "int",
            "Frames of a video that an epoch trains on, a random stretch of a longer one; for customRNN without marks "
            "in the file names also the length of every video.",
            minimum=1,
        ),
        "BATCH_SIZE": Key(4, "int", "Videos side by side in a recurrent training batch.", minimum=1),
        "CELL_LEVELS": Key(
            None,
            "ints?",
            "Levels of lstm_ssd, counted from 0, that have a Bottleneck-LSTM; null is the last layer of the base "
            "alone.",
            minimum=0,
        ),
        "CELL_CHANNELS": Key(
            [],
            "ints",
            "Channels of each cell of lstm_ssd, or of the memory of lstm_ssd_interleaved; empty is a quarter of the "
            "cell's input, or 320.",
            minimum=1,
        ),
        "CELL_SKIP": Key(
            False,
            "bool",
            "Let the levels behind a memory of lstm_ssd read its bottleneck too, as lstm_ssd_interleaved always does: "
            "what the frame alone shows goes past the memory.",
        ),
        "CELL_BOUND": Key(
            "clip",
            "choice",
            "What keeps a Bottleneck-LSTM's memory within 6: clip cuts it, scale divides the whole map by its largest "
            "value, none leaves it.",
            ("clip", "scale", "none"),
        ),
        "SMALL_NETS": Key(
            "auto",
            "str",
            "The cheap extractor of lstm_ssd_interleaved, which sees images of half the size; NETS is the other one.  "
            "auto is slim_mobilenet_v2_035 with a stride that suits.",
        ),
        "POLICY": Key(
            "fixed",
            "choice",
            "Which extractor of lstm_ssd_interleaved sees a frame in inference: fixed is NETS once and then INTERVAL "
            "times SMALL_NETS; adaptive is NETS when the memory and what SMALL_NETS would make of it have drifted "
            "apart by ADAPT_THRESHOLD, at least every INTERVAL + 1 frames; random, large and small speak for "
            "themselves; async, for demo and ObjectDetector, runs NETS beside the frames, on the newest one whenever "
            "it is free, and is fixed in the phases.",
            ("fixed", "adaptive", "random", "large", "small", "async"),
        ),
        "TRAIN_POLICY": Key(
            "random",
            "choice",
            "The same for training; on stills fixed is random, too.",
            ("fixed", "random", "large", "small"),
        ),
        "SMALL_UPDATES": Key(
            False,
            "bool",
            "Let frames of SMALL_NETS write into the memory too: it then gathers over all frames; False is the paper's "
            "way, in which they only read what NETS has left there.",
        ),
        "INTERVAL": Key(9, "int", "Frames of SMALL_NETS after each of NETS.", minimum=0),
        "ADAPT_THRESHOLD": Key(
            0.5,
            "float",
            "Change of the memory, relative to its size, above which adaptive calls NETS for the next frame.",
            minimum=0,
        ),
    },
}

TRAIN = {
    "MAX_EPOCHS": Key(300, "int", "Number of the last epoch, counted from 1.", minimum=1),
    "BATCH_SIZE": Key(32, "int", "Images in a training batch, of all processes together.", minimum=1),
    "BATCH_PER_PROCESS": Key(
        False,
        "bool",
        "Count BATCH_SIZE and MODEL.RNN.BATCH_SIZE for one process: more processes then make larger batches, and fewer "
        "steps an epoch.",
    ),
    "SYNC_NORMS": Key(
        True,
        "bool",
        "With several processes, let batch norms see the images of all of them; False is quicker over a slow network, "
        "and then no longer the same training as in one process.",
    ),
    "HANG_SECONDS": Key(
        900,
        "int",
        "Without a step for so long, every process writes what it is doing to EXP_DIR/stacks; several then end, for "
        "torchrun to start them anew; 0: never.",
        minimum=0,
    ),
    "TRAINABLE_SCOPE": Key(
        "",
        "str",
        "Comma list of the parts that learn: base, norm, extras, loc, conf, transforms, pyramids or parameter paths; "
        "'' is all.",
    ),
    "RESUME_SCOPE": Key(
        "", "str", "Comma list of the parts that RESUME_CHECKPOINT fills, in the same words; '' is all."
    ),
    "RESUME": Key(
        "auto",
        "str",
        "auto continues the run found in EXP_DIR; a path continues from that checkpoint (also as --resume PATH).",
    ),
    "CHECKPOINTS_EPOCHS": Key(
        5, "int", "Save a checkpoint every so many epochs; the last epoch is always saved.", minimum=1
    ),
    "CHECKPOINTS_ITERATIONS": Key(
        0,
        "int",
        "Also save every so many optimizer steps within an epoch, until the epoch's own checkpoint is there; 0: never.",
        minimum=0,
    ),
    "CHECKPOINTS_KEPT": Key(
        5,
        "int",
        "Checkpoints of whole epochs kept besides the best one; older ones of this run are deleted.",
        minimum=1,
    ),
    "TRACK_MAP": Key(True, "bool", "Score the model on the evaluation images while it trains, and keep the best."),
    "TRACK_MAP_EVERY": Key(5, "int", "Score every so many epochs, and after the last.", minimum=1),
    "EARLY_STOP_EPOCHS": Key(
        0,
        "int",
        "End training when an evaluation finds that the best mAP is so many epochs old; 0 never does; needs TRACK_MAP.",
        minimum=0,
    ),
    "IMAGE_SIZES": Key(
        [],
        "sizes",
        "Multi-resolution training: every batch has one of these sizes, each [height, width] or one number; empty is "
        "MODEL.IMAGE_SIZE alone.  Evaluation always uses MODEL.IMAGE_SIZE.",
        minimum=1,
    ),
    "AMP": Key(
        "auto",
        "choice",
        "Mixed precision of training: auto is bf16 where the hardware multiplies it, fp16 on older GPUs, else none.",
        ("auto", "bf16", "fp16", "none"),
    ),
    "EMA_DECAY": Key(
        0.999,
        "float",
        "Decay of the averaged weights that are evaluated; 0 switches averaging off.",
        minimum=0,
        below=1,
    ),
    "ACCUMULATE": Key(1, "int", "Batches whose gradients are summed before one optimizer step.", minimum=1),
    "CLIP_NORM": Key(
        10.0,
        "float",
        "Largest norm of the whole gradient, which is scaled down to it; 0 switches clipping off.",
        minimum=0,
    ),
    "LOG_EVERY": Key(10, "int", "Write losses, rate and throughput every so many optimizer steps.", minimum=1),
    "OPTIMIZER": {
        "OPTIMIZER": Key("sgd", "choice", "The optimizer.", ("sgd", "adam", "adamw", "rmsprop")),
        "LEARNING_RATE": Key(
            0.001,
            "float",
            "Base learning rate.  Where a file leaves the section out, VGG and networks that start from trained "
            "weights get 0.0003.",
            above=0,
        ),
        "RATE_FOR_BATCH": Key(
            0,
            "int",
            "Batch that LEARNING_RATE is meant for: the rate is multiplied by what the whole batch (of all processes, "
            "times ACCUMULATE) has of it (arXiv 1706.02677); 0 leaves it as it is.",
            minimum=0,
        ),
        "MOMENTUM": Key(0.9, "float", "Momentum of sgd and rmsprop, first beta of adam and adamw.", minimum=0, below=1),
        "MOMENTUM_2": Key(
            0.99, "float", "Second beta of adam and adamw, smoothing constant of rmsprop.", minimum=0, below=1
        ),
        "EPS": Key(1e-8, "float", "Term added to the denominator by adam, adamw and rmsprop.", minimum=0),
        "WEIGHT_DECAY": Key(0.0001, "float", "Weight decay.", minimum=0),
        "DECAY_BIAS_AND_NORM": Key(True, "bool", "Whether weight decay also acts on biases and normalisation weights."),
        "BIAS_LR_FACTOR": Key(1.0, "float", "Factor on the learning rate of biases; Caffe SSD uses 2.", minimum=0),
    },
    "LR_SCHEDULER": {
        "SCHEDULER": Key(
            "step",
            "choice",
            "Course of the learning rate: step and multi_step multiply by GAMMA at STEPS, exponential every epoch, "
            "SGDR is a cosine.",
            ("step", "multi_step", "exponential", "SGDR"),
        ),
        "STEPS": Key(
            [1],
            "ints",
            "Epochs of the steps: step takes the first as its period, multi_step all as milestones.",
            minimum=1,
        ),
        "GAMMA": Key(0.98, "float", "Factor of step, multi_step and exponential.", above=0),
        "WARM_UP_EPOCHS": Key(0, "int", "Epochs at the base rate before the schedule starts.", minimum=0),
        "WARM_UP_ITERATIONS": Key(
            500,
            "int",
            "Optimizer steps of linear ramp from nothing at the very start, at most a tenth of the run.",
            minimum=0,
        ),
        "RESTART_EPOCHS": Key(
            0, "int", "Length in epochs of the first cosine cycle of SGDR; 0 is one cosine to the end.", minimum=0
        ),
        "RESTART_FACTOR": Key(2.0, "float", "Each cosine cycle is so many times as long as the one before.", minimum=1),
        "MAX_EPOCHS": Key(None, "int?", "Derived: TRAIN.MAX_EPOCHS - WARM_UP_EPOCHS."),
    },
}

TEST = {
    "BATCH_SIZE": Key(32, "int", "Images in a batch of eval, test and visualize.", minimum=1),
    "TEST_SCOPE": Key(
        [],
        "ints",
        "First and last epoch of the kept checkpoints that the test phase scores; empty scores one.",
        minimum=0,
        lengths=(0, 1, 2),
    ),
    "CHECKPOINT": Key("", "str", "Checkpoint that the test phase scores: last, best or a path; '' is last."),
    "NUM_PICTURES": Key(
        16, "int", "Test images written with their detections to EXP_DIR/pictures and to TensorBoard.", minimum=0
    ),
    "PICTURE_THRESHOLD": Key(
        0.4,
        "float",
        "Smallest score of a detection that is drawn, and that counts in the confusion matrix and for an image.",
        minimum=0,
        maximum=1,
    ),
    "METRIC": Key(
        "auto",
        "choice",
        "Protocol whose figure is the mAP, by which the best epoch is chosen: voc07 and voc_area at IoU 0.5, coco over "
        "IoU 0.50:0.95; auto is coco for data sets of COCO's kind, ImageNet VID's at IoU 0.5 for videos, else voc07.",
        ("auto", "voc07", "voc_area", "coco"),
    ),
    "VIDEO_BREAK": Key(
        [],
        "strs",
        "Where videos of customRNN begin, and the state is reset, in eval, test and visualize: image numbers counted "
        "from 0 in the order of the list, or from_dataset for names as 0001-000.",
    ),
    "PRINT_IMAGES": Key(False, "bool", "Write every test image with its detections, not only NUM_PICTURES."),
}

VISUALIZE = {
    "IMAGE": Key(
        "",
        "str",
        "Image that the visualize phase looks at: its name, or its number from 0 in TEST_SETS; '' is the first one "
        "with objects.",
    ),
    "DETECTION": Key(
        1, "int", "Detection of that image, counted from the best, whose gradients are drawn too.", minimum=1
    ),
}

MATCHER = {
    "NUM_CLASSES": Key(None, "int?", "Derived: MODEL.NUM_CLASSES."),
    "BACKGROUND_LABEL": Key(0, "int", "Accepted for old files; the background is always class 0."),
    "MATCHED_THRESHOLD": Key(
        0.5, "float", "Smallest IoU of a prior with an object that makes it a positive.", minimum=0, maximum=1
    ),
    "UNMATCHED_THRESHOLD": Key(
        0.5,
        "float",
        "Priors whose IoU lies from here up to MATCHED_THRESHOLD are neither; equal or higher: none.",
        minimum=0,
        maximum=1,
    ),
    "NEGPOS_RATIO": Key(3, "int", "Hard negatives for each positive of an image.", minimum=1),
    "EMPTY_NEGATIVES": Key(10, "int", "Hard negatives taken from an image without objects.", minimum=0),
    "VARIANCE": Key([0.1, 0.2], "floats", "Scale of the encoded centre and size offsets.", above=0, lengths=(2,)),
}

CRITERION = {
    "CONF_LOSS": Key(
        "multibox",
        "choice",
        "Classification loss: multibox is cross entropy over the positives and the hardest negatives, focal counts "
        "every prior by how wrong it is, sigmoid_focal does so for each class alone, as in RetinaNet, and makes scores "
        "sigmoids.",
        ("multibox", "focal", "sigmoid_focal"),
    ),
    "FOCAL_ALPHA": Key(
        0.25,
        "float",
        "Weight of objects in the focal losses; that of the background is 1 - FOCAL_ALPHA.",
        minimum=0,
        maximum=1,
    ),
    "FOCAL_GAMMA": Key(
        2.0,
        "float",
        "How much less the focal losses count a prior that is nearly right; 0 counts all alike.",
        minimum=0,
    ),
    "BOX_LOSS": Key(
        "smooth_l1",
        "choice",
        "Loss of the boxes: smooth_l1 of the encoded offsets; giou, diou or ciou, overlaps of the boxes with the "
        "objects.",
        ("smooth_l1", "giou", "diou", "ciou"),
    ),
    "BOX_WEIGHT": Key(1.0, "float", "Weight of the loss of the boxes.", above=0),
    "NEGATIVE_WEIGHT": Key(1.0, "float", "Weight of each hard negative of multibox.", above=0),
}

POST_PROCESS = {
    "NUM_CLASSES": Key(None, "int?", "Derived: MODEL.NUM_CLASSES."),
    "BACKGROUND_LABEL": Key(0, "int", "Derived: MATCHER.BACKGROUND_LABEL."),
    "SCORE_THRESHOLD": Key(0.01, "float", "A detection's score must be above this.", minimum=0, maximum=1),
    "IOU_THRESHOLD": Key(
        0.6, "float", "NMS drops a box whose IoU with a better one of its class is above this.", minimum=0, maximum=1
    ),
    "MAX_DETECTIONS": Key(100, "int", "Best candidates of each class that enter NMS.", minimum=1),
    "MAX_PER_IMAGE": Key(0, "int", "Best detections kept of an image over all classes; 0 keeps all.", minimum=0),
    "CLIP_BOXES": Key(False, "bool", "Cut boxes to the image before scoring; demo and ObjectDetector always do."),
    "VARIANCE": Key(None, "floats?", "Derived: MATCHER.VARIANCE."),
}

DATASET = {
    "DATASET": Key(
        "voc",
        "str",
        "Kind of data set: voc; custom, any VOC annotations; coco, any JSON annotations of COCO's form; coco_vid, the "
        "same with videos; yolo, text files of labels; imagenet_vid; imagenet, that in VOC layout; customRNN, frames "
        "with VOC annotations; or another one registered in lib/dataset.",
    ),
    "DATASET_DIR": Key(
        "./data", "strs", "Folder of the data set, or a list of folders that are joined; of yolo also a data.yaml."
    ),
    "TRAIN_SETS": Key(
        None,
        "sets?",
        "Image sets to train on: split names, or [year, split] pairs; of coco names of annotation files, where "
        "train2017 and [2017, train] are instances_train2017.json; null is what the folders offer (trainval or train, "
        "else a seeded split).",
    ),
    "TEST_SETS": Key(None, "sets?", "Image sets of the test phase; null is what the folders offer (test, else val)."),
    "EVAL_SETS": Key(
        None,
        "sets?",
        "Image sets of the eval phase, which choose the best checkpoint; null is val where training leaves it out, "
        "else TEST_SETS, with a warning.",
    ),
    "CLASSES": Key(
        [], "strs", "Class names without the background; empty is the data set's own (custom: sorted discovery)."
    ),
    "SPLIT": Key(
        [0.8, 0.1, 0.1],
        "floats",
        "Parts of train, val and test where a folder has no lists; drawn with SEED, kept in EXP_DIR.  The set "
        "'all' is the whole folder.",
        minimum=0,
        maximum=1,
        lengths=(3,),
    ),
    "ON_BAD": Key(
        "drop",
        "choice",
        "What becomes of faulty boxes, annotations and images: drop leaves out what cannot be used and cuts boxes of "
        "which at least half lies in the image; clip also repairs reversed corners and cuts every box that touches the "
        "image; fail ends with their list.  Boxes that leave the image by 1 pixel are cut under all three.",
        ("drop", "clip", "fail"),
    ),
    "CACHE": Key(
        "",
        "str",
        "Where training keeps its images once they are decoded: ram, a folder (for all runs on the same images), or '' "
        "nowhere.",
    ),
    "CACHE_SCALE": Key(
        2.0,
        "float",
        "What CACHE keeps is shrunk to so many times MODEL.IMAGE_SIZE, as far as it is larger; crops then show what is "
        "left.  0: nothing is shrunk.",
        minimum=0,
    ),
    "EXIF": Key(
        "ignore",
        "choice",
        "Images that EXIF calls rotated: ignore takes the pixels as stored, apply turns them, fail ends with their "
        "list.",
        ("ignore", "apply", "fail"),
    ),
    "PROB": Key(0.6, "float", "Probability of the expand augmentation.", minimum=0, maximum=1),
    "CROP_PROB": Key(
        1.0,
        "float",
        "Probability that one of the seven crop modes of SSD is drawn; a lower one learns faster in short trainings.",
        minimum=0,
        maximum=1,
    ),
    "CROP_OVERLAP": Key(
        "any",
        "choice",
        "Which objects must overlap a random crop as much as drawn: any one (the SSD paper) or all (the reference "
        "code).",
        ("any", "all"),
    ),
    "MIN_BOX_SIZE": Key(
        0.01,
        "float",
        "Objects whose shorter side is below this part of the augmented image are left out of training.",
        minimum=0,
        maximum=1,
    ),
    "ROTATION": Key(
        0.0,
        "float",
        "Largest angle in degrees, either way, by which a training image is rotated; 0 is off.",
        minimum=0,
        maximum=180,
    ),
    "ROTATION_PROB": Key(0.5, "float", "Probability of a rotation where ROTATION is on.", minimum=0, maximum=1),
    "ELASTIC_PROB": Key(
        0.0,
        "float",
        "Probability that a training image, or all frames of a video alike, is gently bent.",
        minimum=0,
        maximum=1,
    ),
    "DROPOUT_PROB": Key(
        0.0,
        "float",
        "Probability that a few patches of a training image, or the same ones of all frames of a video, are painted in "
        "the mean colour.",
        minimum=0,
        maximum=1,
    ),
    "MOSAIC": Key(
        0.0,
        "float",
        "Probability that a training image is put together from four images of the set.",
        minimum=0,
        maximum=1,
    ),
    "MIXUP": Key(
        0.0, "float", "Probability that a training image is blended with another one of the set.", minimum=0, maximum=1
    ),
    "PLAIN_EPOCHS": Key(0, "int", "Last epochs of a training, which go without MOSAIC and MIXUP.", minimum=0),
    "SAMPLING": Key(
        "uniform",
        "choice",
        "How often an image occurs in an epoch: uniform is once; repeat_factor repeats images of classes that few "
        "images hold; class_weight draws as many images as there are so that CLASS_WEIGHTS decide how often a class "
        "comes.",
        ("uniform", "repeat_factor", "class_weight"),
    ),
    "REPEAT_THRESHOLD": Key(
        0.0,
        "float",
        "repeat_factor repeats the images of classes that a smaller part of the images than this holds; 0 takes the "
        "mean over the classes.",
        minimum=0,
        maximum=1,
    ),
    "CLASS_WEIGHTS": Key(
        [], "floats", "Weights for class_weight, in the order of the class names; empty is equal ones.", minimum=0
    ),
    "COLOR_ORDER": Key("BGR", "choice", "Order of the colour channels that the weights expect.", ("BGR", "RGB")),
    "PIXEL_MEANS": Key(
        [103.94, 116.78, 123.68], "floats", "Mean subtracted from each channel, in COLOR_ORDER.", lengths=(3,)
    ),
    "PIXEL_STDS": Key(
        [1.0, 1.0, 1.0], "floats", "Divisor of each channel after that, in COLOR_ORDER.", above=0, lengths=(3,)
    ),
    "NUM_WORKERS": Key(
        "auto", "workers", "Processes that load images; auto is one less than the cores, at most 8.", minimum=0
    ),
    "SHUFFLE": Key(True, "bool", "Draw the training images in a new order every epoch."),
    "IMAGE_SIZE": Key(None, "size?", "Derived: MODEL.IMAGE_SIZE."),
    "TRAIN_BATCH_SIZE": Key(None, "int?", "Derived: TRAIN.BATCH_SIZE."),
    "TEST_BATCH_SIZE": Key(None, "int?", "Derived: TEST.BATCH_SIZE."),
}

SCHEMA = {
    "MODEL": MODEL,
    "TRAIN": TRAIN,
    "TEST": TEST,
    "VISUALIZE": VISUALIZE,
    "MATCHER": MATCHER,
    "CRITERION": CRITERION,
    "POST_PROCESS": POST_PROCESS,
    "DATASET": DATASET,
    "ROOT_DIR": Key("", "str", "Accepted for old files; relative paths start at the working folder."),
    "EXP_DIR": Key(
        "./experiments/models", "str", "Folder of the run: checkpoints, effective configuration, logs, results."
    ),
    "LOG_DIR": Key("", "str", "Folder of the TensorBoard files; '' is EXP_DIR."),
    "RESUME_CHECKPOINT": Key(
        "",
        "str",
        "Weights to start from, where EXP_DIR holds no run: of this trainer, of the reference family, or of a system "
        "in experiments/cfgs/imported.  Classes are taken over by name; DATASET.COLOR_ORDER, PIXEL_MEANS and "
        "PIXEL_STDS follow the weights, where they are not given.",
    ),
    "CHECKPOINTS_PREFIX": Key(None, "str?", "Derived: SSDS_NETS_DATASET, the stem of the checkpoint names."),
    "PHASE": Key(["train", "eval", "test"], "choices", "Phases to run, each once, in the order given.", PHASES),
    "SEED": Key(0, "int", "Seed of initial weights, order of images and augmentation.", minimum=0),
    "DEVICE": Key("auto", "str", "auto is the first GPU, or the CPU; else a torch device such as cuda:1."),
}

RECIPE = {
    "TRAIN.OPTIMIZER": {
        "OPTIMIZER": "adamw",
        "LEARNING_RATE": 0.004,
        "MOMENTUM_2": 0.999,
        "WEIGHT_DECAY": 0.05,
        "DECAY_BIAS_AND_NORM": False,
    },
    "TRAIN.LR_SCHEDULER": {"SCHEDULER": "SGDR"},
}
"""What a file gets instead of the defaults in a section that it leaves out altogether: settings that learn quickly from
scratch.  The defaults are those of the reference family, whose files give these sections.  Nothing here may change what
a model computes or how a loss is defined: those follow the family, whatever a file leaves out."""

GENTLE_RATE = 0.0003
"""The learning rate of RECIPE for networks that a high one would spoil: VGG, which has no batch norm, and networks that
start from trained weights."""

DERIVED = {
    "TRAIN.LR_SCHEDULER.MAX_EPOCHS": lambda cfg: cfg.TRAIN.MAX_EPOCHS - cfg.TRAIN.LR_SCHEDULER.WARM_UP_EPOCHS,
    "DATASET.IMAGE_SIZE": lambda cfg: cfg.MODEL.IMAGE_SIZE,
    "DATASET.TRAIN_BATCH_SIZE": lambda cfg: cfg.TRAIN.BATCH_SIZE,
    "DATASET.TEST_BATCH_SIZE": lambda cfg: cfg.TEST.BATCH_SIZE,
    "MATCHER.NUM_CLASSES": lambda cfg: cfg.MODEL.NUM_CLASSES,
    "POST_PROCESS.NUM_CLASSES": lambda cfg: cfg.MODEL.NUM_CLASSES,
    "POST_PROCESS.BACKGROUND_LABEL": lambda cfg: cfg.MATCHER.BACKGROUND_LABEL,
    "POST_PROCESS.VARIANCE": lambda cfg: cfg.MATCHER.VARIANCE,
    "CHECKPOINTS_PREFIX": lambda cfg: f"{cfg.MODEL.SSDS}_{cfg.MODEL.NETS}_{cfg.DATASET.DATASET}".replace("/", "_"),
}
"""Keys computed from others after everything is merged, as in the reference family; a YAML value is overruled."""

IMAGENET_COLORS = {
    "DATASET.COLOR_ORDER": "RGB",
    "DATASET.PIXEL_MEANS": [123.675, 116.28, 103.53],
    "DATASET.PIXEL_STDS": [58.395, 57.12, 57.375],
}
"""What torchvision's ImageNet weights expect of an image, in levels of 0 to 255."""

INPUT_KEYS = ("MODEL.STEM_ACTIVATION", *IMAGENET_COLORS)
"""Keys that the weights of a base rely on without their shapes showing it: a checkpoint is not used under others."""

WIRING_KEYS = (
    "MODEL.SOURCE_NORM",
    "MODEL.NORM_IN_TRUNK",
    "MODEL.EXTRAS_ACTIVATION",
    "MODEL.RFB_BLOCK",
    "MODEL.ALIGN_CORNERS",
    "MODEL.HEAD",
    "MODEL.RNN.CELL_BOUND",
    "CRITERION.CONF_LOSS",
)
"""The same for the rest of a detector."""

ALIKE = {"CRITERION.CONF_LOSS": ("multibox", "focal")}
"""Values of those keys among which a change means nothing to trained weights: the scores of both are a softmax."""

IMPLIED = {"MODEL.STEM_ACTIVATION": "relu"}
"""What a stored configuration means that lacks the key, because it is older than the key, where that is not its
default."""

IGNORED = {
    "PRETRAINED": "see MODEL.PRETRAINED",
    "RESUME_MODEL": "a pickled model",
    "RESUME_START_EPOCH": "see TRAIN.RESUME",
    "TEST_STEP": "see TRAIN.TRACK_MAP_EVERY",
    "TRAIN_MODE": "mixup",
    "DEVICE_ID": "see DEVICE",
    "TEACHER_MODEL": "distillation",
    "LOSS": "see CRITERION.CONF_LOSS",
    "WEIGHT_CONVERT": "classes of other weights",
    "MODEL.ACTIVATION": "another activation",
    "TRAIN.CRITERION": "see CRITERION.CONF_LOSS",
    "TRAIN.EVAL_EPOCHS": "see TRAIN.TRACK_MAP_EVERY",
    "TRAIN.LR_SCHEDULER.T_0": "see TRAIN.LR_SCHEDULER.RESTART_EPOCHS",
    "TRAIN.LR_SCHEDULER.T_MULT": "see TRAIN.LR_SCHEDULER.RESTART_FACTOR",
    "TRAIN.LR_SCHEDULER.ETA_MIN": "smallest rate of the cosine",
    "TRAIN.LR_SCHEDULER.WR_TI": "see TRAIN.LR_SCHEDULER.RESTART_EPOCHS",
    "DATASET.DATACLASSES": "see DATASET.CLASSES",
}
"""Keys and whole sections of other forks that a file may hold without effect, but not without a warning, and what they
are for or which key of this schema does the same."""

OLD_WORDS = {"PHASE": {"visualize_results": "visualize", "custom_visualize": "visualize"}}
"""Values of forks that are read, with a warning, as a value of this schema."""
