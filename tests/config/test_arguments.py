"""The command line that all scripts share."""

import pytest

from lib.config import CommandLineParser, add_config_arguments, load_config, parse_config_arguments
from lib.utils.errors import UserError


@pytest.fixture
def parser():
    parser = CommandLineParser("train.py", description="Trains a detector.")
    parser.add_argument("--fast", action="store_true")
    return add_config_arguments(parser)


@pytest.fixture
def yml(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("TRAIN: {BATCH_SIZE: 4}\nPHASE: [train]\n")
    return str(path)


@pytest.mark.parametrize("form", [["--cfg", "{}"], ["--cfg={}"]])
def test_file_and_overrides_in_any_order(parser, yml, form):
    form = [word.format(yml) for word in form]
    for argv in (["SEED=3", *form, "--fast", "TEST.BATCH_SIZE=5"], [*form, "SEED=3", "TEST.BATCH_SIZE=5", "--fast"]):
        args, cfg = parse_config_arguments(parser, argv)
        assert (cfg.TRAIN.BATCH_SIZE, cfg.TEST.BATCH_SIZE, cfg.SEED, args.fast) == (4, 5, 3, True)
        assert args.cfg == yml


def test_phase_and_resume(parser, yml):
    _, cfg = parse_config_arguments(parser, ["--cfg", yml, "--phase", "eval,test", "--resume", "./a (1)/last.pth"])
    assert cfg.PHASE == ["eval", "test"]
    assert cfg.TRAIN.RESUME == "./a (1)/last.pth"
    _, cfg = parse_config_arguments(parser, ["--cfg", yml, "--phase", "test", "PHASE=train"])
    assert cfg.PHASE == ["test"]


def test_without_options_the_file_decides(parser, yml):
    args, cfg = parse_config_arguments(parser, ["--cfg", yml])
    assert cfg == load_config(yml)
    assert args.overrides == []


def test_print_config_prints_what_would_run_and_exits(parser, yml, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_config_arguments(parser, ["--cfg", yml, "--print-config", "SEED=3", "--phase", "test"])
    assert caught.value.code in (0, None)
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"# Effective configuration of {yml} SEED=3 PHASE=test"
    path = tmp_path / "printed.yml"
    path.write_text(printed)
    assert load_config(path) == load_config(yml, ["SEED=3", "PHASE=test"])


def test_help_config_needs_no_file(parser, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_config_arguments(parser, ["--help-config"])
    assert caught.value.code in (0, None)
    assert "TRAIN.BATCH_SIZE = " in capsys.readouterr().out


def test_help_shows_examples_and_the_way_to_all_keys(parser, capsys):
    with pytest.raises(SystemExit):
        parse_config_arguments(parser, ["--help"])
    text = capsys.readouterr().out
    for piece in ("Trains a detector.", "--phase test", "TRAIN.BATCH_SIZE=16", "--help-config lists every key"):
        assert piece in text


def test_missing_file_argument_names_some(parser, monkeypatch, tmp_path):
    folder = tmp_path / "experiments" / "cfgs"
    folder.mkdir(parents=True)
    for name in ("a.yml", "b.yml"):
        (folder / name).write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        parse_config_arguments(parser, [])
    message = "command line: --cfg FILE is missing, for example --cfg experiments/cfgs/a.yml (also there: b.yml)"
    assert str(caught.value) == message


def test_a_file_named_without_its_folder(parser, monkeypatch, tmp_path):
    (tmp_path / "experiments" / "cfgs").mkdir(parents=True)
    (tmp_path / "experiments" / "cfgs" / "a.yml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a.yml: no such file; did you mean 'experiments/cfgs/a.yml'?"):
        parse_config_arguments(parser, ["--cfg", "a.yml"])


def test_file_may_be_optional(parser):
    assert parse_config_arguments(parser, ["SEED=2"], required=False)[1] == load_config(None, ["SEED=2"])


def test_a_file_without_its_option(parser):
    with pytest.raises(UserError, match="give it as --cfg x.yml"):
        parse_config_arguments(parser, ["x.yml"])


@pytest.mark.parametrize(
    ("argv", "piece"),
    [
        (["--epochs", "3"], "command line: --epochs: unknown option; "),
        (["--config"], "did you mean '--cfg'?"),
        (["-phase"], "did you mean '--phase'?"),
        (["--resume"], "command line: argument --resume: expected one argument"),
        (["--TRAIN.BATCH_SIZE", "3"], "keys have no dashes: TRAIN.BATCH_SIZE=VALUE"),
        (["--TRAIN.BATCH_SIZE=3"], "keys have no dashes: TRAIN.BATCH_SIZE=VALUE"),
    ],
)
def test_mistakes_in_options_are_user_errors(parser, yml, argv, piece):
    with pytest.raises(UserError) as caught:
        parse_config_arguments(parser, ["--cfg", yml, *argv])
    assert piece in str(caught.value)


def test_mistakes_in_overrides_are_user_errors(parser, yml):
    with pytest.raises(UserError, match="command line: PHASE: 'tset' is unknown; did you mean 'test'?"):
        parse_config_arguments(parser, ["--cfg", yml, "--phase", "tset"])
