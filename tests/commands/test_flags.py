"""Command line, files, help and documentation say of each option what its declaration says."""

from __future__ import annotations

import ast
import inspect
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from isoloss import cli
from isoloss.commands import COMMANDS
from isoloss.commands.flags import (
    CommandError,
    Given,
    command,
    described,
    facts,
    spelling,
    stand_in,
)
from isoloss.commands.reference import page
from isoloss.errors import UsageError
from isoloss.experiments.options import Option, Options, declared, make, option, parse
from isoloss.experiments.search_space import parse_search
from isoloss.experiments.settings import SurfaceSettings
from isoloss.experiments.train_options import TrainOptions, read_config

HOUSE = Path(__file__).resolve().parents[2]
EACH = [
    pytest.param(name, o, id=f"{name}-{o.name}")
    for name, function in COMMANDS.items()
    for cls in function.groups
    for o in declared(cls)
]
TRAINING = [pytest.param(o, id=o.name) for o in declared(TrainOptions)]


def parser(name):
    return typer.main.get_command(cli.app).commands[name]


def sample(o: Option) -> str:
    """Some text that the option takes, other than its default where there is a choice."""
    if bool in o.types:
        return "" if o.default is False or o.default is None else "off"
    if dict in o.types:
        return "key=3"
    if o.choices:
        return o.choices[-1]
    if int in o.types or float in o.types:
        return "-0.5" if not o.bounds else "1" if o.high else "7"
    return "-1:1:20"


def test_no_default_is_written_twice():
    for file in (HOUSE / "commands").glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
        made = [n for n in calls if ast.unparse(n.func) in ("typer.Option", "typer.Argument")]
        if file.name != "flags.py":
            assert not made, f"{file.name} makes options by hand"
        for call in made:
            assert not any(isinstance(a, ast.Constant) for a in call.args), ast.unparse(call)
            assert not any(k.arg == "default" for k in call.keywords), ast.unparse(call)
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            if any("command(" in ast.unparse(d) for d in function.decorator_list):
                assert not function.args.defaults, f"{function.name} has a default of its own"


@pytest.mark.parametrize(("name", "o"), EACH)
def test_help_says_what_is_declared(name, o):
    (parameter,) = [p for p in parser(name).params if p.name == o.name]
    assert parameter.help == described(o)
    assert parameter.default is None, "the command line has no default"
    assert parameter.required == o.required
    assert parameter.envvar == (o.env or None)
    if not o.positional:
        assert parameter.opts == spelling(o)
        assert parameter.secondary_opts == ([f"--{o.off}"] if o.off else [])
    if bool not in o.types:
        assert parameter.metavar == stand_in(o)
    for word in filter(None, (o.otherwise, o.bounds)):
        assert word in facts(o)


@pytest.mark.parametrize(("name", "o"), EACH)
def test_every_spelling_reaches_the_field(name, o):
    text = sample(o)
    if o.positional:
        lines = [["--", text]]
    elif bool in o.types:
        lines = [spelling(o) if text == "" else [f"--{o.off}"]]
    else:
        lines = [part for flag in spelling(o) for part in ([flag, text], [f"{flag}={text}"])]
    expected = (text == "") if bool in o.types else text
    for line in lines:
        context = parser(name).make_context(name, line, resilient_parsing=True)
        found = context.params[o.name]
        assert found == ([expected] if dict in o.types or tuple in o.types else expected)


@pytest.mark.parametrize("o", TRAINING)
def test_command_line_and_files_agree(o, tmp_path):
    text = "-4" if sample(o) == "-0.5" and float not in o.types else sample(o)
    given = True if bool in o.types else [text] if dict in o.types else text
    value = parse(o, given)
    toml = {str: json.dumps, bool: lambda v: str(v).lower(), dict: lambda v: "{ key = 3 }"}
    written = toml.get(type(value), str)(value)
    for key in (o.name, o.name.replace("_", "-")):
        (tmp_path / "a.toml").write_text(f"{key} = {written}\n")
        stored = read_config(tmp_path / "a.toml")
        assert make(TrainOptions, stored) == make(TrainOptions, {o.name: value})
    (tmp_path / "a.json").write_text(json.dumps({o.name: value}))
    assert read_config(tmp_path / "a.json") == {o.name: value}


def test_an_option_that_is_not_given_is_left_to_its_declaration():
    @dataclass(frozen=True, kw_only=True)
    class Small(Options):
        count: int = option(3, "Count.", low=1)
        figures: bool = option(True, "Figures.", flag="plot", off="no-figures")

    seen = []

    @command(Small)
    def small(settings: Small) -> None:
        """Take a small one."""
        seen.append(settings)

    app = typer.Typer()
    app.command()(small)
    run = typer.main.get_command(app)
    for line in ([], ["--count", "5"], ["--no-figures", "--count=2"]):
        run.main(line, standalone_mode=False)
    assert seen == [Small(), Small(count=5), Small(count=2, figures=False)]
    for line, message in (
        (["--count", "0"], "--count: expected 1 or more, got 0"),
        (["--count", "a"], "--count: expected int, got 'a'"),
    ):
        with pytest.raises(CommandError) as caught:
            run.main(line, standalone_mode=False)
        assert str(caught.value) == message


@pytest.mark.parametrize("o", TRAINING)
def test_underscores_stand_for_dashes(o, capsys):
    if o.positional or "-" not in spelling(o)[0][2:]:
        return
    # Through the door: a flag that is not known would be refused before the unknown loss is.
    flag = "--" + spelling(o)[0][2:].replace("-", "_")
    line = [flag] if bool in o.types else [f"{flag}={sample(o)}"]
    assert cli.main(["train", "--loss", "no_such", *line]) == 2
    assert "no such option" not in capsys.readouterr().err.lower()


def test_what_is_given_is_told_from_what_is_not():
    seen = []

    @command(Given(TrainOptions))
    def some(given: dict[str, object]) -> None:
        """Take what is given."""
        seen.append(given)

    app = typer.Typer()
    app.command()(some)
    run = typer.main.get_command(app)
    run.main([], standalone_mode=False)
    run.main(["--batch-size=full", "--clip", "none", "--epochs=5"], standalone_mode=False)
    assert seen == [{}, {"batch_size": None, "clip": None, "epochs": 5}]


def test_a_damaged_run_is_not_blamed_on_the_command_line(tmp_path, capsys):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.json").write_text('{"epochs": "x"}')
    assert cli.main(["train", "--resume", "--run", "a", "--results", str(tmp_path)]) == 1
    assert "config.json is damaged: epochs: expected int, got 'x'" in capsys.readouterr().err


def test_an_option_in_two_groups_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Other(Options):
        epochs: int = option(3, "Other epochs.")

    with pytest.raises(TypeError, match="expected each option once, in TrainOptions, Other"):
        command(TrainOptions, Other)


def test_the_page_of_options_is_that_of_the_declarations():
    stored = (HOUSE / "docs" / "options.md").read_text(encoding="utf-8")
    assert stored == page(), "python -m isoloss.commands.reference > docs/options.md"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs=int:-3:5", "epochs: expected 0 to 1000000, got -3"),
        ("batch_size=choice:16,0", "batch_size: expected 1 to 1000000000, got 0"),
        ("batch_size=choice:16,all", "batch_size: expected int or full, got 'all'"),
    ],
)
def test_a_range_keeps_to_the_bounds_of_its_option(text, message):
    with pytest.raises(UsageError) as caught:
        parse_search([text])
    assert str(caught.value) == f"`search`: {message}"


def defaults_of(setting: str) -> dict[str, str]:
    """The default of a setting by optimizer, from the optimizers' signatures."""
    from isoloss.trainers.optimizers import OPTIMIZERS

    found = {e.name: inspect.signature(e.factory).parameters.get(setting) for e in OPTIMIZERS}
    return {name: f"{p.default:g}" for name, p in found.items() if p is not None}


def listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def test_words_of_defaults_are_those_of_the_optimizers_and_networks():
    from isoloss.landscape.batch_norm import POLICIES
    from isoloss.landscape.normalisation import NORMALISATIONS
    from isoloss.models import MODELS, default_optimizer
    from isoloss.trainers.optimizers import OPTIMIZERS
    from isoloss.trainers.schedules import SCHEDULES

    otherwise = {o.name: o.otherwise for o in declared(TrainOptions)}
    lr, momentum, decay = map(defaults_of, ("lr", "momentum", "weight_decay"))
    (others,) = {v for name, v in lr.items() if name != "sgd"}
    assert otherwise["lr"] == f"sgd {lr['sgd']}, all others {others}"
    assert otherwise["momentum"] == ", ".join(f"{name} {v}" for name, v in momentum.items())
    adamw = decay.pop("adamw")
    (others,) = set(decay.values())
    assert otherwise["weight_decay"] == f"{others}, adamw {adamw}"
    rho = defaults_of("rho")
    assert otherwise["rho"] == ", ".join(rho.values())
    words = {o.name: o.help for cls in (TrainOptions, SurfaceSettings) for o in declared(cls)}
    assert words["rho"] == f"Of {', '.join(rho)}."
    assert words["schedule"] == f"{listed(SCHEDULES.names())}."
    assert words["base"].endswith(f": {listed([n for n in OPTIMIZERS.names() if n in lr])}.")
    assert {*re.findall(r"\w+", words["norm"].partition(" (")[0])} == {*NORMALISATIONS, "or"}
    assert all(f"{policy} (" in words["bn"] for policy in POLICIES)
    special = {e.name: default_optimizer(e.name) for e in MODELS if not e.is_family}
    named = sorted(name for name, optimizer in special.items() if optimizer != "sgd")
    assert {special[name] for name in named} == {"adam"}
    assert otherwise["optimizer"] == f"sgd; adam for {' and '.join(named)}"
