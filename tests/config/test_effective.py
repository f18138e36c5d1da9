"""The effective configuration survives being written, read, stored and compared; the schema is consistent."""

import json
import os

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.config import (
    config_to_dict,
    describe_schema,
    diff_configs,
    dump_config,
    flatten_config,
    load_config,
    save_config,
    update_derived,
)
from lib.config.effective import TITLE
from lib.config.kinds import KINDS, read_value
from lib.config.loader import KEYS, SECTIONS
from lib.config.schema import DERIVED, IGNORED, OLD_WORDS
from lib.config.yaml_text import parse_yaml, write_value
from lib.utils.errors import UserError


def reload(cfg, tmp_path):
    path = tmp_path / "saved.yml"
    save_config(cfg, path)
    return load_config(path)


AWKWARD = ["no", "off", "null", "~", "", " ", "1e3", "0010", "1:30", "true", "2012-01-01", "y", "N", "<<", "=", "it's",
           'a "b"', "a: b", "#c", "- x", "a, b", "[a]", "(a)", "{a}", "!!x", "*a", "&a", "%a", "@a", "`a", "a\\b",
           "a\nb", "\t", "\x7f", "\u2028", "猫", "🐈"]  # fmt: skip


def test_defaults_survive_a_round_trip(tmp_path, caplog):
    assert reload(load_config(None), tmp_path) == load_config(None)
    assert not caplog.records  # a saved file contradicts nothing


def test_awkward_text_survives_a_round_trip(tmp_path):
    cfg = load_config(None)
    cfg.DATASET.CLASSES = AWKWARD
    cfg.DATASET.DATASET_DIR = AWKWARD
    cfg.MODEL.FEATURE_LAYER = [AWKWARD, [1, 1.0, 1e-9, -3]]
    assert repr(reload(cfg, tmp_path)) == repr(cfg)
    for text in AWKWARD:
        cfg.EXP_DIR = cfg.RESUME_CHECKPOINT = cfg.DATASET.DATASET_DIR = text
        cfg.LOG_DIR = "logs"
        assert repr(reload(cfg, tmp_path)) == repr(cfg)


def test_any_yaml_reader_reads_the_saved_values_the_same(tmp_path):
    cfg = load_config(None, ["TRAIN.OPTIMIZER.EPS=1e-8", "TRAIN.OPTIMIZER.WEIGHT_DECAY=5e-5", "LOG_DIR=logs"])
    cfg.DATASET.CLASSES = AWKWARD
    cfg.EXP_DIR = "off"
    expected = {name: value for name, value in flatten_config(cfg).items() if name not in DERIVED}
    assert flatten_config(yaml.safe_load(dump_config(cfg))) == expected


FLOATS = st.floats(0, 1).filter(lambda x: x > 0)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PATHS = TEXT.filter(bool)
LEVELS = st.lists(st.recursive(st.integers(-99, 999) | FLOATS | TEXT, st.lists, max_leaves=6), max_size=3)
VALUES = {
    "MODEL.IMAGE_SIZE": st.lists(st.integers(1, 2000), min_size=2, max_size=2),
    "MODEL.NUM_CLASSES": st.none() | st.integers(2, 2000),
    "MODEL.FEATURE_LAYER": st.none() | LEVELS,
    "MODEL.SIZES": LEVELS,
    "MODEL.CLIP": st.booleans(),
    "MODEL.PRECISION": st.sampled_from(["auto", "fp32", "bf16", "fp16"]),
    "MODEL.HALF_PRECISION": st.booleans(),
    "TRAIN.MAX_EPOCHS": st.integers(1, 2**62),
    "TRAIN.OPTIMIZER.LEARNING_RATE": FLOATS,
    "TRAIN.OPTIMIZER.WEIGHT_DECAY": st.floats(0, 1e30),
    "TRAIN.LR_SCHEDULER.STEPS": st.lists(st.integers(1, 500)),
    "DATASET.DATASET_DIR": TEXT | st.lists(TEXT),
    "DATASET.CLASSES": st.lists(TEXT),
    "DATASET.TRAIN_SETS": st.none() | st.lists(PATHS | st.lists(PATHS, min_size=2, max_size=2)),
    "DATASET.PIXEL_MEANS": st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
    "DATASET.NUM_WORKERS": st.just("auto") | st.integers(0, 64),
    "EXP_DIR": PATHS,
    "LOG_DIR": PATHS,
    "PHASE": st.lists(st.sampled_from(["train", "eval", "test", "visualize"]), min_size=1, unique=True),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.fixed_dictionaries({}, optional=VALUES))
def test_random_configurations_survive_a_round_trip(tmp_path, values):
    cfg = load_config(None)
    for dotted, value in values.items():
        *sections, name = dotted.split(".")
        target = cfg
        for section in sections:
            target = target[section]
        target[name] = value
    update_derived(cfg)
    assert repr(reload(cfg, tmp_path)) == repr(cfg)


@pytest.mark.parametrize("folder", ["run", "deep/run"])
def test_save_makes_its_folder_and_leaves_nothing_else(tmp_path, folder):
    save_config(load_config(None), tmp_path / folder / "config.yml")
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["config.yml"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.yml"
    old = f"{TITLE} of an earlier start\nSEED: 3\n"
    path.write_text(old)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_config(load_config(None), path)
    assert path.read_text() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("SEED: 3\n"), lambda path: path.mkdir()])
def test_a_file_of_the_users_own_is_not_overwritten(tmp_path, spoil):
    path = tmp_path / "config.yml"
    spoil(path)
    with pytest.raises(UserError, match="config.yml is not of an earlier run and would be overwritten"):
        save_config(load_config(None), path)
    assert path.is_dir() or path.read_text() == "SEED: 3\n"


def test_a_saved_run_can_be_moved(tmp_path):
    path = tmp_path / "config.yml"
    save_config(load_config(None, ["EXP_DIR=./old"]), path)
    assert load_config(path, ["EXP_DIR=./new"]).LOG_DIR == "./new"


def test_plain_dictionary_holds_no_easydict_and_no_tuple():
    cfg = load_config(None)
    cfg.DATASET.PIXEL_MEANS = (1.0, 2.0, 3.0)
    plain = config_to_dict(cfg)
    assert json.loads(json.dumps(plain)) == plain
    assert type(plain["MODEL"]["RNN"]) is dict
    plain["MODEL"]["IMAGE_SIZE"][0] = 1
    assert cfg.MODEL.IMAGE_SIZE == [300, 300]


def test_flat_names():
    flat = flatten_config(load_config(None))
    assert flat["TRAIN.OPTIMIZER.MOMENTUM"] == 0.9
    assert flat["SEED"] == 0
    assert "TRAIN" not in flat


def test_differences_between_a_checkpoint_and_the_present():
    old = config_to_dict(load_config(None, ["MODEL.NUM_CLASSES=5", "SEED=1"]))
    new = load_config(None, ["MODEL.NUM_CLASSES=6", "SEED=1", "DATASET.CLASSES=a,b"])
    # MATCHER.NUM_CLASSES and the other copies say nothing new
    assert diff_configs(old, new) == [("MODEL.NUM_CLASSES", 5, 6), ("DATASET.CLASSES", [], ["a", "b"])]
    assert diff_configs(config_to_dict(new), new) == []


def test_differences_with_a_checkpoint_of_another_version():
    old = config_to_dict(load_config(None))
    del old["TRAIN"]["EMA_DECAY"]  # a key it did not have yet counts with its default
    old["TRAIN"]["GONE"] = 1
    assert diff_configs(old, load_config(None)) == [("TRAIN.GONE", 1, None)]
    assert ("TRAIN.EMA_DECAY", KEYS["TRAIN.EMA_DECAY"].default, 0.5) in diff_configs(
        old, load_config(None, ["TRAIN.EMA_DECAY=0.5"])
    )


def test_description_has_every_key_in_a_hundred_columns():
    text = describe_schema()
    assert max(len(line) for line in text.splitlines()) <= 100
    heads = [line.partition(" = ")[0] for line in text.splitlines() if " = " in line and not line.startswith(" ")]
    assert heads == list(KEYS)
    assert "TRAIN.BATCH_SIZE = 32  (a whole number, at least 1)" in text
    assert "TRAIN.AMP = auto  (one of auto, bf16, fp16, none)" in text
    assert all(name in text for name in IGNORED)


@pytest.mark.parametrize("dotted", list(KEYS))
def test_schema_entries_are_complete_and_their_defaults_valid(dotted):
    key = KEYS[dotted]
    assert key.kind.rstrip("?") in KINDS
    assert key.doc.strip() == key.doc and key.doc.endswith(".")
    assert bool(key.choices) == key.kind.startswith("choice")
    assert dotted == dotted.upper()
    assert read_value(parse_yaml(write_value(key.default), "default"), key) == key.default


def test_tables_of_the_schema_name_keys_that_exist():
    assert set(DERIVED) <= set(KEYS)
    assert set(OLD_WORDS) <= set(KEYS)
    assert not set(IGNORED) & (set(KEYS) | set(SECTIONS))
    for dotted, words in OLD_WORDS.items():
        assert set(words.values()) <= set(KEYS[dotted].choices)
    for hint in IGNORED.values():
        if hint.startswith("see "):
            assert hint.removeprefix("see ") in KEYS
