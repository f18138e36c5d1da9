"""load_config: order of the sources, how values are read, and what is computed at the end."""

import copy
import logging
import pickle

import pytest

from lib.config import dump_config, flatten_config, load_config, update_derived
from lib.config.loader import KEYS


@pytest.fixture
def write(tmp_path):
    def write(text, name="x.yml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def value_of(cfg, dotted):
    return flatten_config(cfg)[dotted]


def test_defaults_hold_every_key_of_the_schema_by_attribute():
    cfg = load_config(None)
    assert set(flatten_config(cfg)) == set(KEYS)
    rate = cfg["TRAIN"]["OPTIMIZER"]["LEARNING_RATE"]
    assert rate == cfg.TRAIN.OPTIMIZER.LEARNING_RATE == KEYS["TRAIN.OPTIMIZER.LEARNING_RATE"].default


def test_later_sources_win(write):
    write("TRAIN: {BATCH_SIZE: 1, MAX_EPOCHS: 1, LOG_EVERY: 1}\nSEED: 1", "bases/far.yml")
    write("_BASE_: far.yml\nTRAIN: {BATCH_SIZE: 2, MAX_EPOCHS: 2, LOG_EVERY: 2}", "bases/near.yml")
    path = write("_BASE_: bases/near.yml\nTRAIN: {BATCH_SIZE: 3, MAX_EPOCHS: 3}")
    cfg = load_config(path, ["TRAIN.BATCH_SIZE=4"])
    assert (cfg.TRAIN.BATCH_SIZE, cfg.TRAIN.MAX_EPOCHS, cfg.TRAIN.LOG_EVERY, cfg.SEED) == (4, 3, 2, 1)


def test_several_bases_apply_in_order_and_may_share_one(write):
    write("SEED: 1\nTRAIN: {LOG_EVERY: 1}", "root.yml")
    write("_BASE_: root.yml\nSEED: 2", "a.yml")
    write("_BASE_: [root.yml]\nTRAIN: {LOG_EVERY: 3}", "b.yml")
    cfg = load_config(write("_BASE_: [a.yml, b.yml]"))
    assert (cfg.SEED, cfg.TRAIN.LOG_EVERY) == (1, 3)  # b's own base comes after a


def test_lists_replace_lists(write):
    write("DATASET: {CLASSES: [a, b, c]}", "base.yml")
    assert load_config(write("_BASE_: base.yml\nDATASET: {CLASSES: [d]}")).DATASET.CLASSES == ["d"]


def test_loads_share_no_state():
    first = load_config(None)
    before = copy.deepcopy(first)
    first.MODEL.IMAGE_SIZE[0] = 7
    first.DATASET.PIXEL_MEANS.append(1.0)
    first.POST_PROCESS.VARIANCE[0] = 9.0
    assert first.MATCHER.VARIANCE == [0.1, 0.2] and first.DATASET.IMAGE_SIZE == [300, 300]
    assert load_config(None) == before


def test_config_copies_and_pickles():
    cfg = load_config(None, ["MODEL.SIZES=[[1, 2], [3, 4]]"])
    assert copy.deepcopy(cfg) == cfg
    assert pickle.loads(pickle.dumps(cfg)).MODEL.SIZES == [[1, 2], [3, 4]]


# Key, the value as it stands in the file, what it means.  Where the last column is absent an override means the same.
READINGS = [
    ("TRAIN.OPTIMIZER.LEARNING_RATE", "1e-3", 0.001),  # text for YAML 1.1, which wants 1.0e-3
    ("TRAIN.OPTIMIZER.LEARNING_RATE", "1", 1.0),
    ("TRAIN.OPTIMIZER.LEARNING_RATE", "'0.004'", 0.004),
    ("TRAIN.OPTIMIZER.LEARNING_RATE", ".5", 0.5),
    ("TRAIN.OPTIMIZER.LEARNING_RATE", "+1.5E-2", 0.015),
    ("TRAIN.BATCH_SIZE", "32.0", 32),
    ("TRAIN.BATCH_SIZE", "1e2", 100),
    ("TRAIN.BATCH_SIZE", "'16'", 16),
    ("TRAIN.BATCH_SIZE", "1", 1),
    ("TRAIN.BATCH_SIZE", "010", 10),  # no octal
    ("TRAIN.BATCH_SIZE", "1_000", 1000),
    ("DATASET.PROB", "1", 1.0),
    ("MODEL.CLIP", "TRUE", True),
    ("MODEL.CLIP", "False", False),
    ("MODEL.CLIP", "'true'", True),
    ("TRAIN.AMP", "none", "none"),
    ("TRAIN.LR_SCHEDULER.SCHEDULER", "sgdr", "SGDR"),
    ("TRAIN.OPTIMIZER.OPTIMIZER", "Adam", "adam"),
    ("EXP_DIR", "off", "off"),
    ("EXP_DIR", "2012-01-01", "2012-01-01"),
    ("EXP_DIR", "1.0", "1.0"),
    ("EXP_DIR", "0010", "0010"),
    ("EXP_DIR", "1:30", "1:30"),
    ("EXP_DIR", "~", "~"),
    ("EXP_DIR", "null", "null"),
    ("EXP_DIR", "'a: b #c'", "a: b #c"),
    ("EXP_DIR", '"tab\\there"', "tab\there"),
    ("DATASET.CLASSES", "[off, no, yes, on, y, null, ~, 0010, 1.0, 1e3, 2012-01-01, 1:30, 'true', '']",
     ["off", "no", "yes", "on", "y", "null", "~", "0010", "1.0", "1e3", "2012-01-01", "1:30", "true", ""]),
    ("DATASET.CLASSES", "person", ["person"]),
    ("DATASET.CLASSES", "'cat, dog'", ["cat, dog"]),
    ("DATASET.CLASSES", "cat, dog", ["cat", "dog"]),
    ("DATASET.CLASSES", "[]", []),
    ("DATASET.CLASSES", "[\"it's\", 'a, b', 猫]", ["it's", "a, b", "猫"]),
    ("DATASET.DATASET_DIR", "./data/a (1)", "./data/a (1)"),
    ("DATASET.DATASET_DIR", "[./a, ./b]", ["./a", "./b"]),
    ("DATASET.PIXEL_MEANS", "(103.94, 116.78, 123.68)", [103.94, 116.78, 123.68]),
    ("DATASET.PIXEL_MEANS", "'(104, 117, 123)'", [104.0, 117.0, 123.0]),
    ("DATASET.PIXEL_MEANS", "'[1, 2, 3]'", [1.0, 2.0, 3.0]),
    ("DATASET.PIXEL_MEANS", "1, 2, 3", [1.0, 2.0, 3.0]),
    ("DATASET.PIXEL_MEANS", "[1, '2', 3e0]", [1.0, 2.0, 3.0]),
    ("DATASET.TRAIN_SETS", "[['2007', 'trainval'], ['2012', 'test']]", [["2007", "trainval"], ["2012", "test"]]),
    ("DATASET.TRAIN_SETS", "[[2007, trainval]]", [["2007", "trainval"]]),
    ("DATASET.TRAIN_SETS", "\"[('2007', 'trainval'), ('2012', 'trainval')]\"",
     [["2007", "trainval"], ["2012", "trainval"]]),
    ("DATASET.TRAIN_SETS", "[trainval]", ["trainval"]),
    ("DATASET.TRAIN_SETS", "[train, val]", ["train", "val"]),
    ("DATASET.TRAIN_SETS", "trainval", ["trainval"]),
    ("DATASET.TRAIN_SETS", "[['train']]", ["train"]),
    ("DATASET.TRAIN_SETS", "[10]", ["10"]),
    ("DATASET.TRAIN_SETS", "'null'", ["null"]),
    ("DATASET.TRAIN_SETS", "null", None),
    ("DATASET.TRAIN_SETS", "None", None),
    ("MODEL.NUM_CLASSES", "~", None),
    ("MODEL.NUM_CLASSES", "21", 21),
    ("MODEL.IMAGE_SIZE", "512", [512, 512]),
    ("MODEL.IMAGE_SIZE", "[300, 500]", [300, 500]),
    ("MODEL.IMAGE_SIZE", "(300, 500)", [300, 500]),
    ("MODEL.FEATURE_LAYER", "[[13, 17, 'S', '', L, 1.5], [96, 320]]", [[13, 17, "S", "", "L", 1.5], [96, 320]]),
    ("MODEL.FEATURE_LAYER", "\"[[13, 'S'], [96, 320]]\"", [[13, "S"], [96, 320]]),
    ("MODEL.FEATURE_LAYER", "null", None),
    ("MODEL.SIZES", "[0.2, 0.95]", [0.2, 0.95]),
    ("MODEL.SIZES", "0.2, 0.95", [0.2, 0.95]),
    ("MODEL.SIZES", "[[45, 45.0], '90']", [[45, 45.0], "90"]),
    ("MODEL.STEPS", "[]", []),
    ("TRAIN.LR_SCHEDULER.STEPS", "80", [80]),
    ("TRAIN.LR_SCHEDULER.STEPS", "[80.0, 1e2]", [80, 100]),
    ("TEST.TEST_SCOPE", "[200]", [200, 200]),
    ("PHASE", "['test']", ["test"]),
    ("PHASE", "train, test", ["train", "test"]),
    ("PHASE", "[test, train, test]", ["test", "train"]),
    ("DATASET.NUM_WORKERS", "0", 0),
    ("DATASET.NUM_WORKERS", "AUTO", "auto"),
]  # fmt: skip


@pytest.mark.parametrize(("dotted", "text", "expected"), READINGS)
def test_values_of_a_file(write, dotted, text, expected):
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(dotted.split("."))]
    value = value_of(load_config(write("\n".join(lines) + f" {text}\n")), dotted)
    assert value == expected
    assert repr(value) == repr(expected)  # 1 is not 1.0


@pytest.mark.parametrize(("dotted", "text", "expected"), READINGS)
def test_values_of_the_command_line(dotted, text, expected):
    value = value_of(load_config(None, [f"{dotted}={text}"]), dotted)
    assert repr(value) == repr(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("DATASET.DATASET_DIR=./a,./b", ["./a", "./b"]),  # a comma makes a list here, not in a file
        ("DATASET.DATASET_DIR='./a,b'", "./a,b"),
        ("DATASET.CLASSES=", []),
        ("RESUME_CHECKPOINT=", ""),
        ("EXP_DIR=out: 1 #2 'x", "out: 1 #2 'x"),  # text is taken as it is
        ("EXP_DIR='quoted'", "quoted"),
        ("TRAIN.RESUME=*x", "*x"),
        ("EXP_DIR=a=b", "a=b"),
        (" MODEL.NUM_CLASSES =5", 5),
        ("MODEL.NUM_CLASSES=", None),
    ],
)
def test_spellings_of_overrides(override, expected):
    dotted = override.partition("=")[0].strip()
    assert value_of(load_config(None, [override]), dotted) == expected


def test_a_section_can_be_given_on_the_command_line_and_a_dotted_key_in_a_file(write):
    cfg = load_config(write("TRAIN.BATCH_SIZE: 5\nMODEL:\n  RNN.IN_USE: true\n"), ["MATCHER={NEGPOS_RATIO: 4}"])
    assert (cfg.TRAIN.BATCH_SIZE, cfg.MODEL.RNN.IN_USE, cfg.MATCHER.NEGPOS_RATIO) == (5, True, 4)


def test_a_single_override_may_be_a_plain_string():
    assert load_config(None, "SEED=3").SEED == 3


def test_empty_places(write):
    cfg = load_config(write("TRAIN:\nMODEL:\n  NUM_CLASSES:\nDATASET:\n  CLASSES:\nRESUME_CHECKPOINT:\n"))
    assert cfg == load_config(write("SEED: 0\n"))


def test_empty_file_means_defaults_with_a_warning(write, caplog):
    assert load_config(write("# nothing yet\n")) == load_config(write("SEED: 0\n", "y.yml"))
    assert "x.yml: empty" in caplog.text


def test_anchors_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "x.yml"
    path.write_bytes(b"\xef\xbb\xbfDATASET:\r\n  TRAIN_SETS: &s [train]\r\n  TEST_SETS: *s\r\n")
    assert load_config(path).DATASET.TEST_SETS == ["train"]


def test_derived_keys_follow_their_sources(write):
    text = "MODEL: {SSDS: fssd, NETS: resnet_50, IMAGE_SIZE: [200, 400], NUM_CLASSES: 4}\nTEST: {BATCH_SIZE: 2}\n"
    overrides = ["TRAIN.BATCH_SIZE=8", "TRAIN.LR_SCHEDULER.WARM_UP_EPOCHS=9", "MATCHER.VARIANCE=1,2"]
    cfg = load_config(write(text), overrides)
    assert cfg.DATASET.IMAGE_SIZE == [200, 400]
    assert (cfg.DATASET.TRAIN_BATCH_SIZE, cfg.DATASET.TEST_BATCH_SIZE) == (8, 2)
    assert cfg.MATCHER.NUM_CLASSES == cfg.POST_PROCESS.NUM_CLASSES == 4
    assert cfg.POST_PROCESS.VARIANCE == [1.0, 2.0]
    assert cfg.TRAIN.LR_SCHEDULER.MAX_EPOCHS == 291
    assert cfg.CHECKPOINTS_PREFIX == "fssd_resnet_50_voc"


def test_update_derived_after_a_change_by_hand():
    cfg = load_config(None)
    cfg.MODEL.NUM_CLASSES = 7
    assert update_derived(cfg) is cfg
    assert cfg.MATCHER.NUM_CLASSES == cfg.POST_PROCESS.NUM_CLASSES == 7


def test_derived_keys_in_a_file_are_overruled_and_warned_about_once_if_they_differ(write, caplog):
    same = "MODEL: {NUM_CLASSES: 5}\nMATCHER: {NUM_CLASSES: 5}\nDATASET: {IMAGE_SIZE: 300}\n"
    load_config(write(same))
    assert not caplog.records
    cfg = load_config(write("MODEL: {NUM_CLASSES: 5}\nMATCHER: {NUM_CLASSES: 6}\nPOST_PROCESS: {NUM_CLASSES: 7}\n"))
    assert cfg.MATCHER.NUM_CLASSES == cfg.POST_PROCESS.NUM_CLASSES == 5
    assert len(caplog.records) == 1
    assert "x.yml:2: MATCHER.NUM_CLASSES: 6 becomes 5" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "precision"),
    [
        ([], "auto"),
        (["MODEL.HALF_PRECISION=True"], "auto"),
        (["MODEL.HALF_PRECISION=False"], "fp32"),
        (["MODEL.HALF_PRECISION=False", "MODEL.PRECISION=bf16"], "bf16"),
        (["MODEL.HALF_PRECISION=False", "MODEL.PRECISION=auto"], "auto"),
    ],
)
def test_half_precision_of_the_reference_family(overrides, precision):
    assert value_of(load_config(None, overrides), "MODEL.PRECISION") == precision


def test_log_dir_is_the_run_folder_unless_given():
    assert load_config(None, ["EXP_DIR=./run"]).LOG_DIR == "./run"
    assert load_config(None, ["EXP_DIR=./run", "LOG_DIR=./logs"]).LOG_DIR == "./logs"


def test_phase_words_of_forks_are_read_with_one_warning(write, caplog):
    caplog.set_level(logging.WARNING)
    base = write("PHASE: [custom_visualize]\n", "base.yml")
    cfg = load_config(write("_BASE_: base.yml\nPHASE: ['test', 'visualize_results', custom_visualize]\n"))
    assert cfg.PHASE == ["test", "visualize"]
    (record,) = caplog.records
    assert record.getMessage() == f"{base}:1: PHASE: 'custom_visualize' is read as 'visualize'"
    assert load_config(None, ["PHASE=custom_visualize"]).PHASE == ["visualize"]


def test_sections_that_a_file_leaves_out_take_the_recipe_and_others_the_defaults(write):
    left_out, given = load_config(write("SEED: 0\n")), load_config(write("TRAIN: {OPTIMIZER: {LEARNING_RATE: 0.01}}\n"))
    assert (left_out.TRAIN.OPTIMIZER.OPTIMIZER, left_out.TRAIN.OPTIMIZER.WEIGHT_DECAY) == ("adamw", 0.05)
    assert (given.TRAIN.OPTIMIZER.OPTIMIZER, given.TRAIN.OPTIMIZER.LEARNING_RATE) == ("sgd", 0.01)
    assert given.TRAIN.OPTIMIZER.WEIGHT_DECAY == 0.0001 and given.TRAIN.OPTIMIZER.DECAY_BIAS_AND_NORM
    assert given.TRAIN.LR_SCHEDULER.SCHEDULER == "SGDR"


def test_no_section_that_is_left_out_changes_the_loss(write):
    """The loss of a family's file is the family's, whatever the file leaves out."""
    for section in ("MODEL", "MATCHER", "POST_PROCESS"):
        assert load_config(write("SEED: 0\n"))[section] == load_config(None)[section]


@pytest.mark.parametrize(
    ("text", "overrides", "rate"),
    [
        ("MODEL: {NETS: mobilenet_v2}", [], 0.004),
        ("MODEL: {NETS: mobilenet_v2}", ["MODEL.PRETRAINED=imagenet"], 0.0003),
        ("MODEL: {NETS: mobilenet_v2}\nRESUME_CHECKPOINT: x.pth", [], 0.0003),
        ("MODEL: {NETS: vgg16}", [], 0.0003),
        ("MODEL: {NETS: vgg16}", ["TRAIN.OPTIMIZER.LEARNING_RATE=0.01"], 0.01),
        ("MODEL: {NETS: vgg16}\nTRAIN: {OPTIMIZER: {MOMENTUM: 0.9}}", [], 0.001),
    ],
)
def test_the_rate_of_the_recipe_spares_vgg_and_trained_weights(write, text, overrides, rate):
    cfg = load_config(write(text + "\n"), overrides)
    assert rate == cfg.TRAIN.OPTIMIZER.LEARNING_RATE


def test_a_base_counts_as_given_and_an_override_does_not(write):
    write("TRAIN: {OPTIMIZER: {OPTIMIZER: sgd}}\n", "base.yml")
    based = load_config(write("_BASE_: base.yml\n"))
    assert (based.TRAIN.OPTIMIZER.OPTIMIZER, based.TRAIN.LR_SCHEDULER.SCHEDULER) == ("sgd", "SGDR")
    overridden = load_config(write("SEED: 1\n"), ["TRAIN.OPTIMIZER.LEARNING_RATE=0.002"])
    assert (overridden.TRAIN.OPTIMIZER.OPTIMIZER, overridden.TRAIN.OPTIMIZER.LEARNING_RATE) == ("adamw", 0.002)


def test_a_dumped_configuration_does_not_take_the_recipe(write):
    assert load_config(write(dump_config(load_config(None)))) == load_config(None)
