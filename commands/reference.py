"""The options of every command as tables: `python -m isoloss.commands.reference` prints them."""

from __future__ import annotations

from isoloss.commands import COMMANDS
from isoloss.commands.flags import facts, spelling, stand_in
from isoloss.experiments.options import Option, Options, declared

HEAD = """# Options

What each command takes, made from the declarations in the source. In the name of an option `_` may
stand for `-` (`--batch_size`); names of networks, data, losses, optimizers and schedules are the
same in any case, with `_` or `-` or neither (`SAM`, `smooth_crossentropy`). Options of `K=V`, of
patterns and of ranges may be repeated. `train --config FILE` reads the options of `train` from
`--run` to `--seed` from a TOML or JSON file, without the leading dashes; on the command line `none`
for a number takes back what the file says.
"""


def options_table(*classes: type[Options]) -> str:
    """Return the options of dataclasses as one table in Markdown."""
    rows = ["| option | value | default and bounds | meaning |", "|---|---|---|---|"]
    for option in (option for cls in classes for option in declared(cls)):
        default = "required" if option.required else facts(option)
        cells = (_code(_spelled(option)), _code([stand_in(option)]), default, option.help)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """Return the page of all commands."""
    parts = [HEAD]
    for name, command in COMMANDS.items():
        first = " ".join((command.__doc__ or "").split("\n\n")[0].split())
        parts.append(f"## {name}\n\n{first}\n\n{options_table(*command.groups)}")
    return "\n".join(parts)


def _spelled(option: Option) -> list[str]:
    return spelling(option) + ([f"--{option.off}"] if option.off else [])


def _code(words: list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words if word)


if __name__ == "__main__":
    print(page(), end="")
