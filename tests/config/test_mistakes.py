"""Every mistake in a configuration is one line: the place, what was given, what is allowed."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.config import load_config
from lib.config.loader import KEYS, SECTIONS
from lib.utils.errors import UserError


def message_of(*args):
    with pytest.raises(UserError) as caught:
        load_config(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


# Text of x.yml, then what the message must hold; the first piece is how it begins after the name of the file.
FILES = [
    # unknown keys
    ("MODEL:\n  NETS: vgg16\n  NET: x", ":3: MODEL.NET: unknown key", "did you mean 'MODEL.NETS'?"),
    ("LEARNING_RATE: 0.1", ":1: LEARNING_RATE: unknown key", "did you mean 'TRAIN.OPTIMIZER.LEARNING_RATE'?"),
    ("TRAIN:\n  LEARNING_RATE: 0.1", ":2: TRAIN.LEARNING_RATE: unknown key", "'TRAIN.OPTIMIZER.LEARNING_RATE'"),
    ("BATCH_SIZE: 3", ":1: BATCH_SIZE: unknown key", "'TRAIN.BATCH_SIZE' or 'TEST.BATCH_SIZE'"),
    ("model:\n  nets: vgg16", ":1: model: unknown key", "did you mean 'MODEL'?"),
    ("MODEL:\n  image_size: 3", ":2: MODEL.image_size: unknown key", "did you mean 'MODEL.IMAGE_SIZE'?"),
    ("DATASETS:\n  PROB: 1", ":1: DATASETS: unknown key", "did you mean 'DATASET'?"),
    ("TRAIN:\n  OPTIMISER:\n    LEARNING_RATE: 1", ":2: TRAIN.OPTIMISER: unknown key", "'TRAIN.OPTIMIZER'"),
    ("MODEL:\n  RNN:\n    QUUX: 1", ":3: MODEL.RNN.QUUX: unknown key", "keys of MODEL.RNN: IN_USE, "),
    ("QUUX: 1", ":1: QUUX: unknown key", "sections: MODEL, TRAIN, "),
    ("MODEL:\n  NETS.DEPTH: 3", ":2: MODEL.NETS.DEPTH: unknown key", "MODEL.NETS is a value and has no keys"),
    ("MODEL: {_BASE_: y.yml}", ":1: MODEL._BASE_: unknown key"),
    # sections and values mixed up
    ("TRAIN: 5", ":1: TRAIN: expected a section, not '5'; its keys: MAX_EPOCHS, "),
    ("TRAIN: [1, 2]", ":1: TRAIN: expected a section, not [1, 2]"),
    ("SEED:\n  A: 1", ":1: SEED: expected a whole number, not a section (A)"),
    ("DATASET:\n  CLASSES: {cat: 1}", ":2: DATASET.CLASSES: expected a list of texts, not a section (cat)"),
    ("DATASET:\n  CLASSES: [cat, [dog]]", ":2: DATASET.CLASSES: expected text, not [dog]"),
    ("EXP_DIR: [a]", ":1: EXP_DIR: expected text, not [a]"),
    ("TRAIN:\n  BATCH_SIZE: [8]", ":2: TRAIN.BATCH_SIZE: expected a whole number, not [8]"),
    ("MODEL:\n  STEPS: 16", ":2: MODEL.STEPS: expected a list", "not '16'"),
    ("MODEL:\n  FEATURE_LAYER: [[1, {a: 2}]]", ":2: MODEL.FEATURE_LAYER: expected a number, a token or a list"),
    # numbers
    ("TRAIN:\n  BATCH_SIZE: 8.5", ":2: TRAIN.BATCH_SIZE: '8.5' is not a whole number"),
    ("TRAIN:\n  BATCH_SIZE: True", ":2: TRAIN.BATCH_SIZE: 'True' is not a whole number"),
    ("TRAIN:\n  BATCH_SIZE: 1:30", ":2: TRAIN.BATCH_SIZE: '1:30' is not a whole number"),
    ("TRAIN:\n  BATCH_SIZE: 0x10", ":2: TRAIN.BATCH_SIZE: '0x10' is not a whole number"),
    ("TRAIN:\n  BATCH_SIZE: 1__0_", ":2: TRAIN.BATCH_SIZE: '1__0_' is not a whole number"),
    ("TRAIN:\n  BATCH_SIZE: null", ":2: TRAIN.BATCH_SIZE: 'null' is not a whole number"),
    ("TRAIN:\n  BATCH_SIZE: " + "9" * 40, ":2: TRAIN.BATCH_SIZE: '9", "is too large"),
    ("TRAIN:\n  BATCH_SIZE: " + "9" * 9000, ":2: TRAIN.BATCH_SIZE: '9", "is not a whole number"),
    ("TRAIN:\n  EMA_DECAY: high", ":2: TRAIN.EMA_DECAY: 'high' is not a number"),
    ("TRAIN:\n  EMA_DECAY: .nan", ":2: TRAIN.EMA_DECAY: '.nan' is not finite"),
    ("TRAIN:\n  CLIP_NORM: -.inf", ":2: TRAIN.CLIP_NORM: '-.inf' is not finite"),
    ("TRAIN:\n  CLIP_NORM: 1e999", ":2: TRAIN.CLIP_NORM: '1e999' is too large"),
    ("MODEL:\n  SIZES: [0.2, nan]", ":2: MODEL.SIZES: 'nan' is not finite"),
    ("DATASET:\n  NUM_WORKERS: many", ":2: DATASET.NUM_WORKERS: 'many' is not auto or a whole number"),
    ("DATASET:\n  NUM_WORKERS: 1.5", ":2: DATASET.NUM_WORKERS: '1.5' is not auto or a whole number"),
    # ranges and lengths
    ("TRAIN:\n  BATCH_SIZE: 0", ":2: TRAIN.BATCH_SIZE: 0 is out of range; allowed: at least 1"),
    ("TRAIN:\n  MAX_EPOCHS: -3", ":2: TRAIN.MAX_EPOCHS: -3 is out of range; allowed: at least 1"),
    ("MODEL:\n  IMAGE_SIZE: [300, 0]", ":2: MODEL.IMAGE_SIZE: 0 is out of range"),
    ("MODEL:\n  IMAGE_SIZE: [300, 300, 3]", ":2: MODEL.IMAGE_SIZE: [300, 300, 3] has 3 entries"),
    ("MODEL:\n  NUM_CLASSES: 1", ":2: MODEL.NUM_CLASSES: 1 is out of range; allowed: at least 2"),
    ("DATASET:\n  PROB: 1.5", ":2: DATASET.PROB: 1.5 is out of range; allowed: 0 to 1"),
    ("TRAIN:\n  OPTIMIZER:\n    LEARNING_RATE: 0", ":3: TRAIN.OPTIMIZER.LEARNING_RATE: 0.0 is out of range", "above 0"),
    ("DATASET:\n  PIXEL_STDS: [1, 0, 1]", ":2: DATASET.PIXEL_STDS: 0.0 is out of range; allowed: above 0"),
    ("DATASET:\n  PIXEL_MEANS: [1, 2]", ":2: DATASET.PIXEL_MEANS: [1, 2] has 2 entries; allowed: 3"),
    ("DATASET:\n  NUM_WORKERS: -1", ":2: DATASET.NUM_WORKERS: -1 is out of range; allowed: at least 0"),
    # booleans and choices
    ("MODEL:\n  CLIP: yes", ":2: MODEL.CLIP: 'yes' is not a boolean; write true or false"),
    ("MODEL:\n  CLIP: 1", ":2: MODEL.CLIP: '1' is not a boolean; write true or false"),
    ("TRAIN:\n  AMP: off", ":2: TRAIN.AMP: 'off' is unknown; allowed: auto, bf16, fp16, none"),
    ("TRAIN:\n  OPTIMIZER:\n    OPTIMIZER: adma", ":3: TRAIN.OPTIMIZER.OPTIMIZER: 'adma' is unknown; did you mean "),
    ("PHASE: [train, tset]", ":1: PHASE: 'tset' is unknown; did you mean 'test'?"),
    ("PHASE: []", ":1: PHASE: the list is empty; allowed: train, eval, test, visualize"),
    # image sets and lists in strings
    ("DATASET:\n  TRAIN_SETS: ['2007', trainval]", ":2: DATASET.TRAIN_SETS: ", "[['2007', 'trainval']]"),
    ("DATASET:\n  TRAIN_SETS: [('2007', 'trainval')]", ":2:", "not readable as YAML"),
    ("DATASET:\n  TRAIN_SETS: [(2007, trainval)]", ":2: DATASET.TRAIN_SETS: ", "YAML knows no tuples"),
    ("DATASET:\n  TRAIN_SETS: [[2007, trainval, x]]", ":2: DATASET.TRAIN_SETS: [2007, trainval, x] is neither"),
    ("DATASET:\n  PIXEL_MEANS: '(1, 2'", ":2: DATASET.PIXEL_MEANS: '(1, 2' is not readable as a list"),
    ("DATASET:\n  PIXEL_MEANS: '(1, 2, f(3))'", ":2: DATASET.PIXEL_MEANS: ", "is not readable as a list"),
    # the line is that of the entry
    ("DATASET:\n  PIXEL_MEANS:\n    - 1\n    - two\n    - 3", ":4: DATASET.PIXEL_MEANS: 'two' is not a number"),
    # YAML itself
    ("MODEL:\n  NETS: a: b", ":2:10: not readable as YAML: mapping values are not allowed here"),
    ("MODEL:\n\tNETS: a", ":2:1: not readable as YAML: ", "indent with spaces, not tabs"),
    ("MODEL: [1, 2\nTRAIN: 3", ":2:", "not readable as YAML: while parsing a flow sequence"),
    ("A: '\x07'", ":1: not readable as YAML: character #x0007 is not text"),
    ("SEED: 1\n---\nSEED: 2", ":2:1: not readable as YAML: expected a single document"),
    ("SEED: *nowhere", ":1:7: not readable as YAML: found undefined alias"),
    ("SEED: 1\nEXP_DIR: a\nSEED: 2", ":3: SEED: given twice, first in line 1"),
    ("MODEL: {CLIP: true}\nMODEL: {CLIP: false}", ":2: MODEL: given twice, first in line 1"),
    ("[a, b]: 3", ":1: a key must be a word"),
    ("SEED: !!python/object/apply:os.system [ls]", ":1: the tag !!python/object/apply:os.system is not allowed"),
    ("SEED: !include y.yml", ":1: the tag !include is not allowed"),
    ("- 1\n- 2", ":1: expected keys such as 'MODEL:' at the top level, not [1, 2]"),
    ("just words", ":1: expected keys such as 'MODEL:' at the top level, not 'just words'"),
    ("MODEL: &a\n  STEPS: [*a]", ":1: too many or too deeply nested values"),
    ("SEED: " + "[" * 60 + "]" * 60, ":1: too many or too deeply nested values"),
    ("SEED: " + "[" * 20000, ": not readable as YAML: nested too deep"),
    ("#" * 1_000_001, ": larger than 1000 kB"),
    # bases
    ("_BASE_: 5.yml", ":1: ", "5.yml: no such file"),
    ("SEED: 1\n_BASE_: {a: 1}", ":2: _BASE_: expected a file name or a list of file names"),
    ("_BASE_:", ":1: _BASE_: expected a file name"),
    ("_BASE_: x.yml", ":1: _BASE_: the files name each other in a circle: ", "x.yml -> "),
    ("_BASE_: .", ":1: ", "is a folder; give a file; the folder holds "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "start", "pieces"), [(text, start, pieces) for text, start, *pieces in FILES])
def test_mistakes_in_a_file(tmp_path, text, start, pieces):
    path = tmp_path / "x.yml"
    path.write_text(text, encoding="utf-8")
    message = message_of(path)
    assert message.startswith(f"{path}{start}")
    for piece in pieces:
        assert piece in message


OVERRIDES = [
    ("TRAIN.BATCH_SIZE", "'TRAIN.BATCH_SIZE' is not of the form KEY=VALUE"),
    ("=5", "'=5' is not of the form KEY=VALUE"),
    ("", "'' is not of the form KEY=VALUE"),
    ("TRAIN.=5", "TRAIN.: unknown key"),
    ("train.batch_size=5", "train.batch_size: unknown key; did you mean 'TRAIN.BATCH_SIZE'?"),
    ("LR=5", "LR: unknown key"),
    ("TEST_STEP=1", "TEST_STEP: unknown key"),  # a key of a fork is accepted from files only
    ("_BASE_=x.yml", "_BASE_: unknown key"),
    ("TRAIN=5", "TRAIN: expected a section, not '5'"),
    ("TRAIN.BATCH_SIZE=", "TRAIN.BATCH_SIZE: '' is not a whole number"),
    ("TRAIN.BATCH_SIZE=[1", "TRAIN.BATCH_SIZE: '[1' is not a whole number"),
    ("MODEL.IMAGE_SIZE=[1", "MODEL.IMAGE_SIZE: '[1' is not readable as a list"),
    ("MODEL.IMAGE_SIZE=300x400", "MODEL.IMAGE_SIZE: '300x400' is not a whole number"),
    ("PHASE=tests", "PHASE: 'tests' is unknown; did you mean 'test'?"),
    ("DATASET.TRAIN_SETS=2007,trainval", "DATASET.TRAIN_SETS: ", "[['2007', 'trainval']]"),
    ("DATASET.TRAIN_SETS=[('2007', f())]", "DATASET.TRAIN_SETS: ", "is not readable as a list"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "start", "pieces"), [(text, start, pieces) for text, start, *pieces in OVERRIDES])
def test_mistakes_on_the_command_line(override, start, pieces):
    message = message_of(None, [override])
    assert message.startswith(f"command line: {start}")
    for piece in pieces:
        assert piece in message


def test_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "ssd_vgg16_voc.yml").write_text("")
    (tmp_path / "fssd_resnet50_coco.yml").write_text("")
    path = tmp_path / "ssd_vgg_voc.yml"
    assert message_of(path) == f"{path}: no such file; did you mean '{tmp_path / 'ssd_vgg16_voc.yml'}'?"


def test_missing_file_unlike_any_other_lists_the_folder(tmp_path):
    (tmp_path / "ssd_vgg16_voc.yml").write_text("")
    assert f"the folder holds {tmp_path / 'ssd_vgg16_voc.yml'}" in message_of(tmp_path / "q")


def test_missing_folder_and_folder_without_files(tmp_path):
    assert message_of(tmp_path / "no" / "x.yml").endswith(f"the folder {tmp_path / 'no'} does not exist")
    assert message_of(tmp_path) == f"{tmp_path}: is a folder; give a file; the folder holds no .yml file"


def test_a_missing_base_names_the_file_that_asks_for_it(tmp_path):
    (tmp_path / "base.yml").write_text("")
    path = tmp_path / "x.yml"
    path.write_text("SEED: 1\n_BASE_: bsae.yml\n")
    message = message_of(path)
    assert message.startswith(f"{path}:2: {tmp_path / 'bsae.yml'}: no such file")
    assert f"did you mean '{tmp_path / 'base.yml'}'?" in message


def test_a_mistake_in_a_base_names_the_base(tmp_path):
    (tmp_path / "base.yml").write_text("SEED: one\n")
    path = tmp_path / "x.yml"
    path.write_text("_BASE_: base.yml\nSEED: 2\n")
    assert message_of(path) == f"{tmp_path / 'base.yml'}:1: SEED: 'one' is not a whole number"


def test_a_circle_names_all_its_files(tmp_path):
    a, b = tmp_path / "a.yml", tmp_path / "b.yml"
    a.write_text("_BASE_: b.yml\n")
    b.write_text("_BASE_: a.yml\n")
    assert message_of(a) == f"{b}:1: _BASE_: the files name each other in a circle: {a} -> {b} -> {a}"


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "x.yml"
    path.write_bytes(b"EXP_DIR: \xff\xfe\n")
    assert message_of(path) == f"{path}: is not UTF-8 text (byte 9)"


def test_aliases_cannot_blow_a_file_up(tmp_path):
    lines = ["A0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"A{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "x.yml"
    path.write_text("\n".join(lines))
    assert "too many or too deeply nested values" in message_of(path)


PIECES = ["[", "]", "{", "}", "(", ")", ",", ":", " ", "\n", "'", '"', "#", "-", "!", "&a", "*a", "|", ">", "%", "~",
          "1", "0.5", "1e3", "nan", "-1", "True", "auto", "train", "2007", "[1, 2]", "(1, 2)", "['2007', 'test']",
          "\x00", "é"]  # fmt: skip
SCRAPS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=6).map("".join)
NAMES = st.sampled_from([*KEYS, *SECTIONS]) | SCRAPS


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(st.tuples(NAMES, SCRAPS), max_size=3), override=st.none() | st.tuples(NAMES, SCRAPS))
def test_whatever_is_written_the_answer_is_a_configuration_or_one_line(tmp_path, entries, override):
    path = tmp_path / "x.yml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in entries), encoding="utf-8", errors="replace")
    try:
        assert set(load_config(path, [f"{override[0]}={override[1]}"] if override else [])) >= {"MODEL", "TRAIN"}
    except UserError as error:
        assert len(str(error).splitlines()) == 1
