"""Texts of the reference family's files and of its forks', in their style, under the names that ours have.

They are put together from the values that those files hold: groups of geometry, one block of training keys, tables of
what is a file's own.
"""

FINE = """\
  STEPS: [[8, 8], [16, 16], [32, 32], [64, 64], [100, 100], [300, 300]]
  SIZES: [[30, 30], [60, 60], [111, 111], [162, 162], [213, 213], [264, 264], [315, 315]]
  ASPECT_RATIOS: [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2], [1, 2]]
"""
COARSE = """\
  STEPS: [[16, 16], [32, 32], [64, 64], [100, 100], [150, 150], [300, 300]]
  SIZES: [[45, 45], [90, 90], [135, 135], [180, 180], [225, 225], [270, 270], [315, 315]]
  ASPECT_RATIOS: [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2], [1, 2]]
"""
YOLO = """\
  SIZES: [[416, 416], [416, 416], [416, 416]]
  ASPECT_RATIOS: [[[0.278,0.216], [0.375,0.475], [0.896,0.783]],
                  [[0.072,0.146], [0.146,0.108], [0.141,0.286]],
                  [[0.024,0.031], [0.038,0.072], [0.079,0.055]], ]
"""
REST = """
TRAIN:
  MAX_EPOCHS: 100
  CHECKPOINTS_EPOCHS: 1
  BATCH_SIZE: 32
  TRAINABLE_SCOPE: 'base,norm,extras,loc,conf'
  RESUME_SCOPE: 'base,norm,extras,loc,conf'
  OPTIMIZER:
    OPTIMIZER: sgd
    LEARNING_RATE: 0.001
    MOMENTUM: 0.9
    WEIGHT_DECAY: 0.0001
  LR_SCHEDULER:
    SCHEDULER: SGDR
    WARM_UP_EPOCHS: 60

TEST:
  BATCH_SIZE: 64
  TEST_SCOPE: [90, 100]

MATCHER:
  MATCHED_THRESHOLD: 0.5
  UNMATCHED_THRESHOLD: 0.5
  NEGPOS_RATIO: 3

POST_PROCESS:
  SCORE_THRESHOLD: 0.01
  IOU_THRESHOLD: 0.6
  MAX_DETECTIONS: 100

DATASET:
  DATASET: 'voc'
  DATASET_DIR: './data/VOCdevkit'
  TRAIN_SETS: [['2007', 'trainval'], ['2012', 'trainval']]
  TEST_SETS:  [['2007', 'test']]
  PROB: 0.6

EXP_DIR: './experiments/models/ssd_voc'
LOG_DIR: './experiments/models/ssd_voc'
RESUME_CHECKPOINT: './weights/ssd/ssd_voc.pth'
PHASE: ['test']
"""
RNN = """\
  RNN:
    IN_USE: True
    USE_LSTM_AFTER_EPOCH: 0
    BACKPROP_STEPS: 5
    FRAMES_IN_VIDEO: 50
    BATCH_SIZE: 8
"""


def text_of(ssds, nets, size, layers, geometry, rest=REST, classes=21):
    head = f"MODEL:\n  SSDS: {ssds}\n  NETS: {nets}\n  IMAGE_SIZE: [{size}, {size}]\n  NUM_CLASSES: {classes}\n"
    return f"{head}  FEATURE_LAYER: {layers}\n{geometry}{rest}"


def table(text):
    """First word of each row -> its other words."""
    return {name: row for name, *row in map(str.split, text.strip().splitlines())}


# File: SSDS, NETS, layers of the base that FEATURE_LAYER starts from, what follows them (LAYERS), geometry (GEOMETRY).
FAMILY = table("""
ssd_vgg16             ssd       vgg16         22,34     plain      fine
ssd_resnet50          ssd       resnet_50     10,16     plain      fine
ssd_resnet101         ssd       resnet_101    10,33     plain      fine
ssd_darknet19         ssd       darknet_19    12,16     strided    coarse
ssd_darknet53         ssd       darknet_53    23,28     strided    coarse
ssd_lite_mobilenetv1  ssd_lite  mobilenet_v1  11,13     mobile1    coarse
ssd_lite_mobilenetv2  ssd_lite  mobilenet_v2  13,17     mobile2    coarse
rfb_vgg16             rfb       vgg16         22,34     rfb        fine
rfb_resnet50          rfb       resnet_50     10,16     rfb        fine
rfb_darknet19         rfb       darknet_19    12,16     rfb_s      coarse
rfb_darknet53         rfb       darknet_53    23,28     rfb_s      coarse
rfb_lite_mobilenetv1  rfb_lite  mobilenet_v1  11,13     rfb_lite1  coarse
rfb_lite_mobilenetv2  rfb_lite  mobilenet_v2  13,17     rfb_lite2  coarse
fssd_vgg16            fssd      vgg16         22,34     fssd_s     fine
fssd_resnet50         fssd      resnet_50     10,16     fssd_s     fine
fssd_darknet19        fssd      darknet_19    8,12,16   fssd       fine
fssd_darknet53        fssd      darknet_53    14,23,28  fssd       fine
fssd_lite_mobilenetv1 fssd_lite mobilenet_v1  5,11,13   fssd       fine
fssd_lite_mobilenetv2 fssd_lite mobilenet_v2  6,13,17   fssd_lite2 fine
yolo_v2_darknet19     yolo_v2   darknet_19    12        yolo2      yolo2
yolo_v2_mobilenetv1   yolo_v2   mobilenet_v1  11        yolo2      yolo2
yolo_v2_mobilenetv2   yolo_v2   mobilenet_v2  13        yolo2      yolo2
yolo_v3_darknet53     yolo_v3   darknet_53    23,14     yolo3      yolo3
yolo_v3_mobilenetv1   yolo_v3   mobilenet_v1  11,5      yolo3      yolo3
yolo_v3_mobilenetv2   yolo_v3   mobilenet_v2  13,6      yolo3      yolo3
""")

EXTRAS, PYRAMID = "[512, 1024, 512, 256, 256, 256]", "[['', 'S', 'S', 'S', '', ''], [512, 512, 256, 256, 256, 256]]"
LAYERS = {
    "plain": f"[[{{}}, 'S', 'S', '', ''], {EXTRAS}]",
    "strided": f"[[{{}}, 'S', 'S', 'S', 'S'], {EXTRAS}]",
    "mobile1": "[[{}, 'S', 'S', 'S', 'S'], [512, 1024, 512, 256, 256, 128]]",
    "mobile2": "[[{}, 'S', 'S', 'S', 'S'], [96, 320, 512, 256, 256, 128]]",
    "rfb": f"[[{{}}, 'RBF', 'RBF', '', ''], {EXTRAS}]",
    "rfb_s": f"[[{{}}, 'RBF', 'RBF', 'S', 'S'], {EXTRAS}]",
    "rfb_lite1": "[[{}, 'RBF', 'S', 'S', 'S'], [512, 1024, 512, 256, 256, 128]]",
    "rfb_lite2": "[[{}, 'RBF', 'S', 'S', 'S'], [96, 320, 512, 256, 256, 128]]",
    "fssd_s": f"[[[{{}}, 'S'], [512, 1024, 512]],\n                  {PYRAMID}]",
    "fssd": f"[[[{{}}], [256, 512, 1024]],\n                  {PYRAMID}]",
    "fssd_lite2": "[[[{}], [32, 96, 320]],\n                  "
    "[['', 'S', 'S', 'S', '', ''], [256, 256, 256, 256, 128, 128]]]",
    "yolo2": "[[['', '',{}, '']], [[1024, 1024, 64, 1024]]]",
    "yolo3": "[[['B','B','B'], [{},'B','B','B'], [{},'B','B','B']],\n"
    "                  [[1024,1024,1024], [256, 512, 512, 512], [128, 256, 256, 256]]]",
}
YOLO2 = "  SIZES: [[416, 416]]\n  ASPECT_RATIOS: [[[0.1,0.1], [0.2,0.2], [0.3,0.3], [0.5,0.5], [0.9,0.9]]]\n"
GEOMETRY = {"fine": (300, FINE), "coarse": (300, COARSE), "yolo2": (416, YOLO2), "yolo3": (416, YOLO)}

# File: for voc, then for coco, epochs/warm-up, batch, rate, test batch, TEST_SCOPE (-: not given).
TRAINING = table("""
ssd_vgg16             2/0     32 .004 64 -        60/5    32 .004 64 55,60
ssd_resnet50          200/50  32 .001 64 190,200  200/10  32 .004 64 190,200
ssd_resnet101         -       -  -    -  -        50/10   32 .004 64 -
ssd_darknet19         100/60  32 .001 64 91,100   100/60  32 .001 64 98,100
ssd_darknet53         100/60  32 .001 64 91,100   100/60  32 .001 64 91,100
ssd_lite_mobilenetv1  300/100 32 .004 64 285,300  100/0   32 .001 64 90,100
ssd_lite_mobilenetv2  300/100 32 .001 64 285,300  200/95  32 .001 64 196,200
rfb_vgg16             100/60  24 .001 64 -        100/60  24 .001 64 -
rfb_resnet50          100/50  32 .001 64 90,100   100/30  28 .001 64 93,100
rfb_darknet19         100/60  32 .001 64 95,100   100/60  32 .001 64 98,100
rfb_darknet53         100/55  32 .001 64 91,100   100/55  16 .001 64 96,100
rfb_lite_mobilenetv1  51/25   32 .004 64 -        51/25   32 .004 64 -
rfb_lite_mobilenetv2  300/0   32 .001 48 270,300  50/0    32 .002 48 45,50
fssd_vgg16            30/0    32 .004 64 27,30    100/30  28 .001 64 90,100
fssd_resnet50         50/20   32 .004 64 90,100   100/10  28 .001 64 90,100
fssd_darknet19        100/60  32 .001 64 91,100   120/60  32 .001 64 110,120
fssd_darknet53        100/60  16 .001 64 91,100   100/60  16 .001 64 100,100
fssd_lite_mobilenetv1 300/100 32 .001 48 285,300  200/97  32 .001 48 196,200
fssd_lite_mobilenetv2 300/100 32 .001 48 288,300  200/100 32 .001 48 188,200
yolo_v2_darknet19     100/0   32 .001 64 90,100   200/120 32 .001 64 198,200
yolo_v2_mobilenetv1   100/60  32 .001 64 91,100   100/60  32 .001 64 92,100
yolo_v2_mobilenetv2   100/40  16 .001 64 91,100   100/55  28 .001 64 91,100
yolo_v3_darknet53     100/45  16 .001 64 90,100   200/80  12 .001 64 191,200
yolo_v3_mobilenetv1   100/50  32 .001 64 90,100   100/60  16 .004 64 90,100
yolo_v3_mobilenetv2   100/20  32 .001 64 90,100   100/50  16 .004 64 90,100
""")
FROZEN_BASE = {"fssd_resnet50_voc", "yolo_v2_mobilenetv2_voc"}
DATA = {
    "voc": (21, "./data/VOCdevkit", "[['2007', 'trainval'], ['2012', 'trainval']]", "[['2007', 'test']]"),
    "coco": (81, "./data/COCO", "[['2017', 'train']]", "[['2017', 'val']]"),
}
PUBLISHED = [
    f"{stem}_{data}"
    for stem, row in TRAINING.items()
    for data, first in (("voc", row[0]), ("coco", row[5]))
    if first != "-"
]


def replaced(text, *pairs):
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def scope_of(ssds):
    """The scope words of a variant's files."""
    words = "base,extras,loc,conf" if ssds.startswith("yolo") else "base,norm,extras,loc,conf"
    return f"{words},transforms,pyramids" if ssds.startswith("fssd") else words


def published_text(name):
    """The file of the reference family that became ours of this name."""
    stem, _, data = name.rpartition("_")
    ssds, nets, taps, kind, group = FAMILY[stem]
    size, geometry = GEOMETRY[group]
    layers = LAYERS[kind].format(*taps.split(",") if kind == "yolo3" else [taps.replace(",", ", ")])
    epochs, batch, rate, test_batch, scope = TRAINING[stem][:5] if data == "voc" else TRAINING[stem][5:]
    classes, folder, train, test = DATA[data]
    words = scope_of(ssds)
    trained = words.replace("base,", "") if name in FROZEN_BASE else words
    rest = replaced(
        REST,
        ("MAX_EPOCHS: 100", f"MAX_EPOCHS: {epochs.split('/')[0]}"),
        ("WARM_UP_EPOCHS: 60", f"WARM_UP_EPOCHS: {epochs.split('/')[1]}"),
        ("BATCH_SIZE: 32", f"BATCH_SIZE: {batch}"),
        ("LEARNING_RATE: 0.001", f"LEARNING_RATE: 0{rate}"),
        ("BATCH_SIZE: 64", f"BATCH_SIZE: {test_batch}"),
        ("  TEST_SCOPE: [90, 100]\n", "" if scope == "-" else f"  TEST_SCOPE: [{scope}]\n"),
        ("TRAINABLE_SCOPE: 'base,norm,extras,loc,conf'", f"TRAINABLE_SCOPE: '{trained}'"),
        ("RESUME_SCOPE: 'base,norm,extras,loc,conf'", f"RESUME_SCOPE: '{words}'"),
        ("DATASET: 'voc'", f"DATASET: '{data}'"),
        ("'./data/VOCdevkit'", f"'{folder}'"),
        ("[['2007', 'trainval'], ['2012', 'trainval']]", train),
        ("[['2007', 'test']]", test),
    )
    return text_of(ssds, nets, size, layers, geometry, rest, classes)


def pairs(numbers):
    return "[" + ", ".join(f"[{n}, {n}]" for n in numbers.split(",")) + "]"


# File of the small-object fork: SSDS, NETS, side, tokens (_ is an empty one), channels, STEPS, SIZES, number of levels
# with ratios [1, 2, 3] and with [1, 2], batch, rate, epochs/warm-up, RESUME_SCOPE.
SMALL_OBJECTS = table("""
ssd_lite_mobilenetv1_coco_S1L0 ssd_lite mobilenet_v1_S1L0 300 11,13,S,S,S,P 512,1024,512,256,256,128 \
 8,16,32,64,100,300 10,45,90,135,180,225,270 5+1 24 .001 100/0 base
ssd_lite_mobilenetv1_coco_S1L4 ssd_lite mobilenet_v1_S1L4 300 11,13,S,S,S,P 512,1024,512,256,256,128 \
 8,16,32,64,100,300 10,45,90,135,180,225,315 5+1 32 .001 100/0 base
ssd_lite_mobilenetv1_coco_S1L6 ssd_lite mobilenet_v1_S1L6 300 11,13,S,S,S,S 512,1024,512,256,256,128 \
 8,16,32,64,100,150 10,45,90,135,180,225,270 5+1 32 .001 100/0 all
ssd_lite_mobilenetv1_coco_S2L0_6 ssd_lite mobilenet_v1_S2L0_6 300 11,13,S,S,S,S 512,1024,512,256,256,128 \
 4,8,16,32,64,100 5,10,45,90,135,180,225 5+1 16 .001 100/0 base
ssd_lite_mobilenetv1_coco_anchor10 ssd_lite mobilenet_v1 300 11,13,S,S,S,S 512,1024,512,256,256,128 \
 16,32,64,100,150,300 10,90,135,180,225,270,315 4+2 32 .001 100/0 all
ssd_lite_mobilenetv1_coco_f6 ssd_lite mobilenet_v1 300 5,11,13,S,S,S,S 256,512,1024,512,256,256,128 \
 8,16,32,64,100,150,300 10,45,90,135,180,225,270,315 5+2 32 .001 100/0 base
ssd_lite_mobilenetv1_coco_size512 ssd_lite mobilenet_v1 512 11,13,S,S,S,S 512,1024,512,256,256,128 \
 16,32,64,128,256,512 45,133,215,297,379,461,543 4+2 32 .001 100/0 all
ssd_lite_dual_mobilenetv1_coco_S1L0_split ssd_lite_dual mobilenet_v1_S1L0 300 11,13,S,S,S,S 512,1024,512,256,256,128 \
 8,16,64,100,150,300 10,45,135,180,225,270,315 5+1 24 .001 100/0 base
ssd_vgg16_coco_S1L2 ssd vgg16_S1L2 300 22,34,S,S,S,S 512,1024,512,256,256,256 \
 4,8,16,32,64,100 15,30,60,111,162,213,264 4+2 16 .004 60/5 base
ssd_dual_vgg16_coco_S1L2 ssd_dual vgg16_S1L2 300 22,34,S,S,_,_ 512,1024,512,256,256,256 \
 4,8,32,64,100,300 15,30,111,162,213,264,315 4+2 16 .004 60/5 base
ssd_vgg16_coco_S2L2_5 ssd vgg16_S2L2_5 300 29,34,S,S,_,_ 512,1024,512,256,256,256 \
 8,16,32,64,100,300 30,60,111,162,213,264,315 4+2 32 .004 60/5 base
""")


def small_objects_text(row):
    ssds, nets, side, tokens, channels, steps, sizes, ratios, batch, rate, epochs, scope = row
    tokens = [token if token.isdigit() else f"'{token.strip('_')}'" for token in tokens.split(",")]
    long, short = map(int, ratios.split("+"))
    geometry = f"  STEPS: {pairs(steps)}\n  SIZES: {pairs(sizes)}\n"
    geometry += f"  ASPECT_RATIOS: {[[1, 2, 3]] * long + [[1, 2]] * short}\n"
    classes, folder, train, test = DATA["coco"]
    words = scope_of(ssds)
    rest = replaced(
        REST,
        ("MAX_EPOCHS: 100", f"MAX_EPOCHS: {epochs.split('/')[0]}"),
        ("WARM_UP_EPOCHS: 60", f"WARM_UP_EPOCHS: {epochs.split('/')[1]}"),
        ("BATCH_SIZE: 32", f"BATCH_SIZE: {batch}"),
        ("LEARNING_RATE: 0.001", f"LEARNING_RATE: 0{rate}"),
        ("  TEST_SCOPE: [90, 100]\n", ""),
        ("RESUME_SCOPE: 'base,norm,extras,loc,conf'", f"RESUME_SCOPE: '{words if scope == 'all' else scope}'"),
        ("DATASET: 'voc'", "DATASET: 'coco'"),
        ("'./data/VOCdevkit'", f"'{folder}'"),
        ("[['2007', 'trainval'], ['2012', 'trainval']]", train),
        ("[['2007', 'test']]", test),
    )
    return text_of(ssds, nets, side, f"[[{', '.join(tokens)}], [{channels}]]", geometry, rest, classes)


# File of the LSTM fork: NETS, tokens, channels, BASE_STRUCTURE, TRACK_MAP.  All had six lists of ratios.
LSTM = table("""
baseline     mobilenet_v2      13,17,S,S,S,S    96,320,512,256,256,128     -             True
expand       mobilenet_v2      13,17,S,S,S,S,S  96,320,512,256,256,128,128 -             True
prune        mobilenet_v2      13,17,S,S,S      96,320,512,256,256         -             True
prune2       mobilenet_v2      13,17,S,S        96,320,512,256             -             True
prune3       mobilenet_v2      13,17,S          96,320,512                 -             True
075_prune3   mobilenet_v2_075  13,17,S          72,240,512                 -             True
cut1_prune3  mobilenet_v2_cut  13,15,S          96,320,512                 1,2,3,4,3,1,1 True
cut2_prune3  mobilenet_v2_cut  11,13,S          96,320,512                 1,2,3,4,1,1,1 False
cut3_prune3  mobilenet_v2_cut  9,11,S           96,320,512                 1,2,3,2,1,1,1 False
""")


def lstm_text(nets, tokens, channels, structure, track_map):
    tokens = ", ".join(token if token.isdigit() else f"'{token}'" for token in tokens.split(","))
    rnn = replaced(RNN, ("USE_LSTM_AFTER_EPOCH: 0", "USE_LSTM_AFTER_EPOCH: 1601"), ("BATCH_SIZE: 8", "BATCH_SIZE: 32"))
    cut = "" if structure == "-" else f"  BASE_STRUCTURE: [{structure}]\n  DEPTH_MULTIPLIER: 1.0\n"
    rest = replaced(
        REST,
        ("MAX_EPOCHS: 100", f"MAX_EPOCHS: 1601\n  TRACK_MAP: {track_map}"),
        ("CHECKPOINTS_EPOCHS: 1\n", "CHECKPOINTS_EPOCHS: 100\n"),
        ("WARM_UP_EPOCHS: 60", "WARM_UP_EPOCHS: 100"),
        ("OPTIMIZER: sgd", "OPTIMIZER: adam"),
        ("BATCH_SIZE: 64", "BATCH_SIZE: 1"),
        ("TEST_SCOPE: [90, 100]", "TEST_SCOPE: [285,300]"),
        ("DATASET: 'voc'", "DATASET: 'customRNN'"),
        ("'./data/VOCdevkit'", "'./data/custom'"),
        ("[['2007', 'trainval'], ['2012', 'trainval']]", "[['2007', 'train']]"),
    )
    layers = f"[[{tokens}], [{channels}]]"
    return text_of("ssd_lite_RNN", nets, 300, layers, COARSE + rnn + cut, rest, classes=5)
