"""Isoloss on the command line: options, help, errors and exit codes.

`main(argv)` returns the exit code: 0, 1 where something failed, 2 where the command line is wrong.

Run as a script (`python cli.py`), this file is the package's door in a clone, installed or not: it
makes `isoloss` stand for its own folder, so that one clone never runs another one's code, and takes
that folder off the path, where `models` or `datasets` would hide other people's packages.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType

if not __package__:  # a script; also in processes that multiprocessing starts from one
    from importlib.util import find_spec, module_from_spec, spec_from_file_location
    from pathlib import Path

    def _of_start_up(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Say of Ctrl-C before `main` can what it says."""
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = _of_start_up
    _HOUSE = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != _HOUSE]
    _spec = spec_from_file_location(
        "isoloss", _HOUSE / "__init__.py", submodule_search_locations=[str(_HOUSE)]
    )
    if _spec is None or _spec.loader is None:
        sys.exit(f"expected the package isoloss around {__file__}")
    sys.modules["isoloss"] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["isoloss"])
    if find_spec("typer") is None:
        sys.exit(f"what isoloss needs is not installed; install it with: pip install -e {_HOUSE}")

import typer

from isoloss.commands import COMMANDS
from isoloss.commands.console import any_text
from isoloss.commands.flags import CommandError, dashed
from isoloss.errors import IsolossError
from isoloss.records.provenance import remember_command

INTERRUPTED = "interrupted; the same command goes on with what is finished (train: with --resume)"
_BY_CTRL_C = 130  # what typer makes of KeyboardInterrupt
EPILOG = "Exit codes: 0 done, 1 failed, 2 wrong usage. Any command takes --debug for a traceback."

app = typer.Typer(
    help="Isoloss measures the shape of the loss around trained networks and draws it.",
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": dashed,
    },
)
for _name, _command in COMMANDS.items():
    app.command(_name, epilog=EPILOG)(_command)


@app.callback(invoke_without_command=False)
def _root() -> None:
    """Keep the name of the command on the line even where only one is registered."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; those of the process where None.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    remember_command(arguments)
    with any_text():
        return _run(arguments, debug)


def _run(arguments: list[str], debug: bool) -> int:
    command = typer.main.get_command(app)
    try:
        with _ended_as_by_ctrl_c():
            code = command.main(arguments, prog_name="cli.py", standalone_mode=False)
        if code == _BY_CTRL_C:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print(INTERRUPTED, file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, exit_code = _explain(error)
        if text:
            print(text, file=sys.stderr)
        return exit_code


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM (of Slurm, say) and a closed terminal end a command as Ctrl-C does.

    Under torchrun they end the process at once, as it cannot be woken while it waits for others.
    """
    names = [] if "RANK" in os.environ else ["SIGTERM", "SIGHUP"]
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    try:
        for one in signals:
            before[one] = signal.signal(one, interrupt)
    except ValueError:  # not the main thread: signals are somebody else's
        pass
    try:
        with _not_lost(next(iter(before), signal.SIGINT)):
            yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _not_lost(number: int) -> Iterator[None]:
    """Send a signal where the exception of one came where Python drops any.

    That is in callbacks of weak references and in `__del__`.
    """
    hook, main = sys.unraisablehook, threading.main_thread()

    def again(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)
        elif hasattr(signal, "pthread_kill"):
            threading.Timer(0.05, signal.pthread_kill, (main.ident, number)).start()
        else:  # Windows
            threading.Timer(0.05, _thread.interrupt_main).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook


def entry_point() -> None:
    """Run one command and leave the process with its exit code."""
    # Figures go to files alone, and matplotlib refuses to start where this names a backend that is
    # not there. Of a process that calls `main` it is its own.
    os.environ["MPLBACKEND"] = "agg"
    sys.exit(main())


def _explain(error: Exception) -> tuple[str, int]:
    """Return the lines to print, at most three, and the exit code."""
    if isinstance(error, CommandError):
        kind = "usage" if error.exit_code == 2 else "error"
        return _lines(f"{kind}: {error}"), error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the option parser's
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            return str(error.format_message()), 2
        path = context.command_path if context is not None else "cli.py"
        return f"usage: {error.format_message()}\nsee: python {path} --help", 2
    if isinstance(error, OSError | IsolossError):
        return _lines(f"error: {error}"), 1
    kind = type(error).__name__
    return _lines(
        f"error: unexpected {kind}: {error}", limit=2
    ) + "\nrun again with --debug for the traceback", 1


def _lines(text: str, limit: int = 3) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[:limit])


if __name__ == "__main__":
    entry_point()
