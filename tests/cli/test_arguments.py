"""What people type is what the parser reads."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from depthkit.cli.arguments import gathered, with_environment
from depthkit.cli.main import main
from depthkit.cli.options import OWN_RULES, Resizing, own_size, shown_name
from depthkit.evaluation import PROTOCOLS
from depthkit.models import PUBLISHED, FlipAverage, midas_timm
from depthkit.resize import InputResize, OutputResize, input_rule_of


def command(
    model: str,
    sources: list[str],
    *,
    range: tuple[float, float] | None = None,
    flip: bool | None = None,
    resize: Resizing = OWN_RULES,
    name: str = "",
    allow: list[str] | None = None,
) -> None:
    """A command."""


def also(*, size: tuple[int, int] = (1, 1), camera: Sequence[float] | None = None) -> None:
    """Options that the command takes, too."""


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("m a", 'm ["a"]'),
        ("m a b c", 'm ["a", "b", "c"]'),
        ("m [a,b]", "m [a,b]"),
        ("--name x m a b", 'm ["a", "b"] --name x'),
        ("m a --range 0 1.5 b", 'm ["a", "b"] --range [0, 1.5]'),
        ("m a --range -1 1", 'm ["a"] --range [-1, 1]'),
        ("m a --range [0,1]", 'm ["a"] --range [0,1]'),
        ("m a --flip", 'm ["a"] --flip true'),
        ("m --flip a", 'm ["a"] --flip true'),
        ("m a --flip false", 'm ["a"] --flip false'),
        ("m a --flip --name=x", 'm ["a"] --flip true --name=x'),
        ("m a --resize.side 384", 'm ["a"] --resize.side 384'),
        ("m a --resize.side 192 640", 'm ["a"] --resize.side [192, 640]'),
        ("m a --resize.align_image --resize.padding 3", 'm ["a"] --resize.align_image true --resize.padding 3'),
        ("m --size 64 96 a", 'm ["a"] --size [64, 96]'),
        ("m --camera 7 7.5 3 2 --flip a", 'm ["a"] --camera [7, 7.5, 3, 2] --flip true'),
        ("m a --camera [7,7]", 'm ["a"] --camera [7,7]'),
        ("m a --allow x", 'm ["a"] --allow ["x"]'),
        ("--allow x m a --allow=y --flip", 'm ["a"] --flip true --allow ["x", "y"]'),
        ("m a --allow [x,y]", 'm ["a"] --allow [x,y]'),
        ("m", "m"),
        ("--help", "--help"),
    ],
)
def test_values_in_a_row_are_a_list(typed: str, read: str) -> None:
    assert " ".join(gathered(command, typed.split(), also)) == read


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("predict", "the following arguments are required: model, sources."),
        ("predict a b --nope 3", "unrecognized arguments: --nope 3."),
        ("predict a b --range x", "range: Expected a tuple. Given value: x."),
        ("predict a b --batch_size x", "batch_size: Expected a int. Got value: x."),
        ("predict a b --format gif", "format: Expected a Literal['png', "),
        ("shards write synthetic - out --nope 3", "unrecognized arguments: --nope 3."),
        ("shards write synthetic - out --count x", "count: Expected a int. Got value: x."),
        ("shards write synthetic - out", "the following arguments are required: count."),
        ("shards nope", "argument subcommand: invalid choice: 'nope' (choose from 'info', 'verify')."),
    ],
)
def test_a_word_that_is_not_understood_is_one_sentence(typed, said, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(typed.split())
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"RecipeError: {said}")
    assert re.fullmatch(r".* See `depthkit .* --help`\.\n", told)


def test_a_changed_protocol_has_no_published_figures() -> None:
    protocol = PROTOCOLS["midas_kitti"]
    assert OWN_RULES.of_protocol(protocol) is protocol
    changed = Resizing(side=518.0, multiple=14, align_corners=True).of_protocol(protocol)
    assert (changed.input.side, changed.input.multiple, changed.input.rule) == (518.0, 14, "lower_bound")
    assert (changed.output.align_corners, changed.published) == (True, {})
    assert "not comparable" in changed.source


def test_rules_of_a_network_are_changed_in_part_and_follow_it_when_mirrored() -> None:
    network = midas_timm("mobilenetv2_035", features=8, pretrained=False)
    network.input_rule, network.output_rule = InputResize(384, "upper_bound"), OutputResize(mode="bicubic")
    Resizing(side=256.0, interpolation="bilinear").of_network(network)
    assert network.input_rule == InputResize(256.0, "upper_bound", 32, "bilinear")
    assert FlipAverage(network).input_rule == network.input_rule
    assert FlipAverage(network).output_rule.mode == "bicubic"
    assert own_size(network) is None
    network.trained_size = (64, 96)
    assert own_size(network) == (64, 96)


def test_every_rule_of_the_registry_can_be_chosen_for_another_network() -> None:
    for entry in PUBLISHED.values():
        wanted, output = entry.input_rule or input_rule_of(entry), entry.output_rule or OutputResize()
        network = SimpleNamespace()
        Resizing(
            side=wanted.side, rule=wanted.rule, multiple=wanted.multiple, interpolation=wanted.interpolation,
            antialias=wanted.antialias, align_image=wanted.align_corners, extend=wanted.extend, padding=wanted.padding,
            output=output.mode, align_corners=output.align_corners,
        ).of_network(network)  # fmt: skip
        assert (network.input_rule, network.output_rule) == (wanted, output)


def test_tables_call_a_model_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").touch()
    assert shown_name(str(tmp_path / "last.ckpt")) == "last"
    assert shown_name(str(tmp_path)) == tmp_path.name
    assert shown_name("midas_v21=x/y.pt") == "midas_v21"


@pytest.mark.parametrize(
    ("typed", "variables", "read"),
    [
        ("fit --config r --a 1", {"DEPTHKIT_FIT__TRAINER__MAX_EPOCHS": "5"}, "fit --config r --trainer.max_epochs=5 --a 1"),
        ("fit -c q --config=r --a 1", {"DEPTHKIT_FIT__A": "5"}, "fit -c q --config=r --a=5 --a 1"),
        (
            "fit",
            {"DEPTHKIT_FIT__MODEL__LR": "0", "DEPTHKIT_FIT__DATA__SEED": "1"},
            "fit --data.seed=1 --model.lr=0",
        ),
        ("predict m a", {"DEPTHKIT_PREDICT__PRECISION": "bf16", "DEPTHKIT_FIT__A": "1"}, "predict --precision=bf16 m a"),
        ("predict m a", {"DEPTHKIT_SAMPLES": "x", "PREDICT__A": "1"}, "predict m a"),
    ],
)
def test_variables_of_the_environment_outweigh_a_recipe_and_what_is_typed_outweighs_them(typed, variables, read):
    assert " ".join(with_environment(typed.split(), variables)) == read


def test_what_comes_from_the_environment_is_said(monkeypatch, capsys):
    monkeypatch.setenv("DEPTHKIT_RECIPES__NAME", "nothing_of_this_name")
    with pytest.raises(SystemExit) as stop:
        main(["recipes"])
    assert stop.value.code == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first == "From the environment: --name=nothing_of_this_name"
    assert "nothing_of_this_name" in last
