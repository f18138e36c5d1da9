"""What holds for any files and overrides: the later wins, the order of others counts for nothing, no typo passes."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.config import load_config
from lib.config.loader import KEYS, SECTIONS
from lib.config.schema import DERIVED, IGNORED, RECIPE
from lib.utils.errors import UserError

FIXED = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = {
    "MODEL.NETS": st.sampled_from(["vgg16", "mobilenet_v2", "resnet_50"]),
    "MODEL.CLIP": st.sampled_from(["True", "False"]),
    "MODEL.IMAGE_SIZE": st.integers(64, 600).map(str),
    "TRAIN.MAX_EPOCHS": st.integers(1, 500).map(str),
    "TRAIN.BATCH_SIZE": st.integers(1, 64).map(str),
    "TRAIN.OPTIMIZER.LEARNING_RATE": st.floats(1e-5, 1).map(str),
    "DATASET.PROB": st.floats(0, 1).map(str),
    "DATASET.CLASSES": st.lists(st.sampled_from(["cat", "dog", "off", "no"]), unique=True).map(str),
    "SEED": st.integers(0, 999).map(str),
    "EXP_DIR": st.sampled_from(["a", "b/c", "x y"]),
}
MENTIONED = {f"{section}.{name}": value for section, values in RECIPE.items() for name, value in [*values.items()][:1]}
"""A key of each of the sections that would take other values where no file mentions them."""
CHOICES = st.fixed_dictionaries({}, optional=VALUES)


def words(values: dict) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


def write(folder, name: str, values: dict, base: str = ""):
    """A file with dotted keys, which files may have too."""
    lines = [f"_BASE_: {base}"] if base else []
    path = folder / name
    path.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in values.items())]) + "\n")
    return path


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.ERROR)


@FIXED
@given(CHOICES, st.randoms(use_true_random=False))
def test_the_order_of_overrides_of_other_keys_counts_for_nothing(values, random):
    shuffled = words(values)
    random.shuffle(shuffled)
    assert repr(load_config(None, words(values))) == repr(load_config(None, shuffled))


@FIXED
@given(CHOICES, CHOICES)
def test_the_command_line_beats_the_file_and_later_words_earlier_ones(tmp_path, first, second):
    path = write(tmp_path, "x.yml", MENTIONED | first)
    together = load_config(path, words(second))
    assert repr(together) == repr(load_config(write(tmp_path, "y.yml", MENTIONED | first | second)))
    assert repr(load_config(path, words(first) + words(second))) == repr(together)


@FIXED
@given(st.lists(CHOICES, min_size=1, max_size=5))
def test_a_chain_of_bases_is_one_file_in_which_the_last_one_wins(tmp_path, layers):
    joined = {}
    for number, values in enumerate(layers):
        path = write(tmp_path, f"{number}.yml", values, f"{number - 1}.yml" if number else "")
        joined |= values
    assert repr(load_config(path)) == repr(load_config(write(tmp_path, "all.yml", joined)))


KNOWN = sorted({*KEYS, *SECTIONS, *IGNORED, *DERIVED})
WORD = st.text(st.characters(categories=["Lu", "Ll", "Nd"], include_characters="_"), min_size=1, max_size=12)


@FIXED
@given(st.sampled_from(sorted(KEYS)), WORD, st.booleans())
def test_unknown_keys_are_refused_wherever_they_stand(tmp_path, key, word, inside):
    name = f"{key.rpartition('.')[0]}.{word}".lstrip(".") if inside else f"{key}{word}"
    if name in KNOWN:
        return
    for call in (lambda: load_config(None, [f"{name}=1"]), lambda: load_config(write(tmp_path, "x.yml", {name: 1}))):
        with pytest.raises(UserError, match="unknown key"):
            call()
