"""The registry finds what was registered and helps with what was not."""

import pytest

from lib.utils.errors import UserError
from lib.utils.registry import Registry


@pytest.fixture
def nets():
    registry = Registry("base network")

    @registry.register("vgg16")
    def vgg16():
        return 16

    @registry.register("mobilenet_v2")
    def mobilenet_v2():
        return 2

    return registry


def test_get_returns_the_registered_entry_and_the_decorator_leaves_it_usable(nets):
    assert nets.get("vgg16")() == 16
    assert nets.get("mobilenet_v2")() == 2
    assert "vgg16" in nets and "resnet_50" not in nets


def test_names_are_sorted(nets):
    assert nets.names() == ["mobilenet_v2", "vgg16"]


def test_a_near_miss_is_answered_with_the_nearest_name(nets):
    with pytest.raises(UserError, match=r"^MODEL\.NETS: 'mobilnet_v2' is unknown; did you mean 'mobilenet_v2'\?$"):
        nets.get("mobilnet_v2", "MODEL.NETS")


def test_a_far_miss_lists_what_is_allowed_and_names_the_kind(nets):
    with pytest.raises(UserError, match=r"^base network: 'zzz' is unknown; allowed: mobilenet_v2, vgg16$"):
        nets.get("zzz")


def test_the_same_name_twice_is_a_programming_error(nets):
    with pytest.raises(ValueError, match="registered twice"):
        nets.register("vgg16")
