"""Loads somebody else's Python code, from a file or an installed module, beside our own modules.

Most research repositories have a ``models/``, a ``datasets/`` or a ``utils.py`` at their top level,
and two of them may be used together. A plug-in therefore gets a private table of modules, one for
each plug-in folder. While its code imports something, the table is swapped into ``sys.modules`` and
its folder is first on ``sys.path``; afterwards everything is as before.

Private is whatever is found in the plug-in's folder or in a folder it put on ``sys.path`` itself.
Everything else (torch, numpy, Hugging Face's ``datasets``, ``isoloss``) is shared as usual.
Three moments are served: importing the file, calling its factory, and import statements inside
functions that run at any later time (``forward``, say): the last by a ``__import__`` of its own
in the builtins of each private module. ``importlib.import_module`` is served in the first two only.
The swap concerns the whole process: no other thread should import anything meanwhile.
"""

from __future__ import annotations

import builtins
import difflib
import hashlib
import importlib
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import resolve_name, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from isoloss.errors import IsolossError
from isoloss.plugin_guard import undone
from isoloss.specs import (
    absolute_spec,
    describe_plugin,
    is_module_spec,
    plugin_file,
    plugin_identity,
    plugin_sha256,
)

__all__ = [
    "HOUSE",
    "PLUGIN_ROLES",
    "Plugin",
    "PluginError",
    "absolute_spec",
    "describe_plugin",
    "is_module_spec",
    "load_plugin",
    "plugin_file",
    "plugin_identity",
    "plugin_sha256",
    "undone",
]

# Settings of a run that can name a file of the user's.
PLUGIN_ROLES = ("model", "dataset", "loss", "closure")
HOUSE = Path(__file__).resolve().parent
# Shared although a plug-in's folder may hold files of these names: the interpreter needs its own,
# and a second copy of this package would have registries of its own.
_NEVER_PRIVATE = sys.stdlib_module_names | {"__main__", "isoloss"}


class PluginError(IsolossError, RuntimeError):
    """A plug-in cannot be found, imported or called."""


@dataclass(frozen=True)
class Plugin:
    """A callable from a plug-in file or an installed module.

    Attributes:
        spec: as the user wrote it, ``path/file.py:attribute`` or ``module:attribute``.
        folder: where its code is.
        function: the bare callable; right for what is called often (a loss), as import statements
            inside it are served all the same.
        file: the file, absolute; None for a module.
        sha256: of the file's bytes; None for a module.
        modules: the modules of the file's folder; None for a module.
    """

    spec: str
    folder: Path
    function: Callable[..., Any]
    file: Path | None = None
    sha256: str | None = None
    modules: PluginModules | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with the plug-in's modules in place, and undo what it sets globally.

        Raises:
            PluginError: the function raised; names the exception and the plug-in's line.
        """
        with undone(), self.modules.active() if self.modules else nullcontext():
            try:
                return self.function(*args, **kwargs)
            except (Exception, SystemExit) as error:
                raise PluginError(f"{self.spec} failed: {_describe(error, self.folder)}") from error


class PluginModules(MetaPathFinder):
    """The modules of one plug-in folder, and the finder that serves their imports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}  # module name -> plug-in file loaded under it
        self.digests: dict[Path, str] = {}
        self._table: dict[str, ModuleType] = {}
        self._path = [str(folder)]  # entries of sys.path that are the plug-in's own
        self._found: dict[str, bool] = {}  # top-level name -> is it in one of those entries
        self._outer_path: list[str] = []
        self._outer_modules: dict[str, ModuleType] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put the plug-in's modules in place; another plug-in that is active steps aside."""
        global _current
        with _lock:
            previous = _current
            if previous is self:
                yield
                return
            if previous is not None:
                previous._leave()
            self._enter()
            _current = self
            try:
                yield
            finally:
                self._leave()
                _current = previous
                if previous is not None:
                    previous._enter()

    def _enter(self) -> None:
        self._outer_path = list(sys.path)
        sys.path[:] = [*self._path, *(p for p in sys.path if p not in self._path)]
        # The other finders stay: they also answer for the metadata of installed packages.
        sys.meta_path.insert(0, self)
        self._outer_modules = self._take_private()
        sys.modules.update(self._table)

    def _leave(self) -> None:
        self._adopt_path()
        self._table = self._take_private()
        sys.modules.update(self._outer_modules)
        sys.path[:] = self._outer_path
        sys.meta_path.remove(self)

    def _adopt_path(self) -> None:
        # What a plug-in added to sys.path stays its own.
        own = [p for p in sys.path if p in self._path or p not in self._outer_path]
        if own != self._path:
            self._path, self._found = own, {}

    def _take_private(self) -> dict[str, ModuleType]:
        names = [name for name in sys.modules if self._is_private(name.partition(".")[0])]
        return {name: sys.modules.pop(name) for name in names}

    def _is_private(self, top: str) -> bool:
        if top in _NEVER_PRIVATE:
            return False
        if top in self.files:
            return True
        if top not in self._found:
            self._found[top] = self._own_spec(top) is not None
        return self._found[top]

    def _own_spec(self, top: str) -> ModuleSpec | None:
        own = [p for p in self._path if Path(p).name not in ("site-packages", "dist-packages")]
        spec = PathFinder.find_spec(top, own)
        if spec is not None and spec.origin is None and self._other_spec(top) is not None:
            return None  # a directory without __init__.py gives way to a module elsewhere
        return spec

    def _other_spec(self, top: str) -> ModuleSpec | None:
        # Our folder is on the path of whoever works in it; nothing in it has a name of its own.
        paths = [p for p in sys.path if p not in self._path and Path(p).resolve() != HOUSE]
        return PathFinder.find_spec(top, paths)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find private modules in the plug-in's folders; leave all others to other finders."""
        self._adopt_path()
        if not self._is_private(name.partition(".")[0]):
            return None
        if name in self.files:
            spec = spec_from_file_location(name, self.files[name])
        elif path is None:
            spec = self._own_spec(name)
        else:
            spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path, self)
        return spec

    def import_statement(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand for ``builtins.__import__`` in the private modules."""
        if not level and name in sys.modules and not self._is_private(name.partition(".")[0]):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        # An import inside forward runs at every step: what is loaded is answered without a swap.
        package = (globals or {}).get("__package__") or ""
        loaded = self._table.get(resolve_name("." * level + name, package) if level else name)
        if loaded is not None and all(hasattr(loaded, attribute) for attribute in fromlist or ()):
            return loaded if fromlist else self._table[name.partition(".")[0]]
        with undone(), self.active():
            return builtins.__import__(name, globals, locals, fromlist or (), level)

    def load(self, file: Path) -> ModuleType:
        """Import one file of the folder, as part of its package where it belongs to one."""
        if file.is_relative_to(HOUSE) and self.folder == HOUSE.parent:  # one of our own
            parts = file.relative_to(HOUSE).with_suffix("").parts
            return importlib.import_module(".".join(("isoloss", *parts)))
        relative = file.relative_to(self.folder).with_suffix("")
        if len(relative.parts) > 1:
            name = ".".join(relative.parts).removesuffix(".__init__")
        else:
            name = relative.name
            if not name.isidentifier() or name in _NEVER_PRIVATE:
                name = "plugin_" + re.sub(r"\W", "_", name)
            self.files[name] = file
        importlib.invalidate_caches()
        with self.active():
            return importlib.import_module(name)


class _Loader(SourceFileLoader):
    """Gives a private module an ``__import__`` that serves its later imports too."""

    def __init__(self, name: str, path: str, modules: PluginModules) -> None:
        super().__init__(name, path)
        self._modules = modules

    def exec_module(self, module: ModuleType) -> None:
        importing = {"__import__": self._modules.import_statement}
        module.__dict__["__builtins__"] = {**vars(builtins), **importing}
        super().exec_module(module)


_lock = threading.RLock()
_current: PluginModules | None = None
_folders: dict[Path, PluginModules] = {}


def load_plugin(spec: str) -> Plugin:
    """Load ``path/file.py:attribute``, or ``module:attribute`` from an installed module.

    A file inside a package (a folder with ``__init__.py``) is imported as part of it, with the
    folder above the package first on the path, so that its relative imports work; any other file
    is imported as a top-level module, with its own folder first. Files of one folder share their
    modules; a file that changed since it was loaded is loaded afresh, with new modules. What it
    sets globally while it is imported (seeds, default dtype, ..) is undone.

    Raises:
        PluginError: malformed spec, missing file, module or attribute, something that cannot be
            called, or an exception while importing.
    """
    if is_module_spec(spec):
        return _load_installed(spec)
    path, _, attribute = spec.rpartition(":")
    if not path.endswith(".py") or not attribute.isidentifier():
        raise PluginError(
            f"expected a plug-in as path/file.py:factory or module:factory, got {spec!r}"
        )
    try:
        file = Path(path).expanduser().resolve()
        is_there = file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long; \0; no such user
        raise PluginError(f"expected a plug-in as path/file.py:factory: {error}") from error
    if not is_there:
        raise PluginError(f"{spec}: expected a Python file at {file}, found none; check the path")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    modules = _folders.get(folder)
    if modules is None or modules.digests.setdefault(file, digest) != digest:
        modules = _folders[folder] = PluginModules(folder)
        modules.digests[file] = digest
    try:
        with undone():
            module = modules.load(file)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{spec} cannot be imported: {_describe(error, folder)}") from error
    function = _attribute(module, attribute, str(file), spec)
    return Plugin(spec, folder, function, file, digest, modules)


def _load_installed(spec: str) -> Plugin:
    name, _, attribute = spec.partition(":")
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise PluginError(
            f"{spec}: expected a module with networks, data or losses, got {top} of Python's own"
        )
    try:
        with undone():
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise PluginError(f"{spec} cannot be imported: {_describe(error, Path())}") from error
        if error.name != top:
            raise PluginError(f"{spec}: {top} is installed, but has no {error.name}") from error
        raise PluginError(
            f"{spec}: no module {top} is installed here; install it, as with: pip install {top}\n"
            f"a file of your own is path/file.py:{attribute}"
        ) from error
    except (Exception, SystemExit) as error:
        place = getattr(importlib.util.find_spec(top), "origin", None)
        folder = Path(place).parent if place else Path()
        raise PluginError(f"{spec} cannot be imported: {_describe(error, folder)}") from error
    folder = Path(sys.modules[top].__file__ or name).parent
    return Plugin(spec, folder, _attribute(module, attribute, name, spec))


def _attribute(module: ModuleType, attribute: str, where: str, spec: str) -> Callable[..., Any]:
    """Return what a spec names in its module, where it can be called."""
    function: Any = module
    for part in attribute.split("."):
        if not hasattr(function, part):
            offered = _offered(module, attribute)
            raise PluginError(f"{where} has no {attribute!r}; it defines: {offered}")
        function = getattr(function, part)
    if not callable(function):
        raise PluginError(
            f"{spec}: expected a function or class, got {type(function).__name__}; "
            f"name a factory that returns it"
        )
    return function


def _offered(module: ModuleType, attribute: str) -> str:
    """Return some names to choose from, near ones first."""
    names = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and f"{getattr(value, '__module__', '')}.".startswith(f"{module.__name__}.")
    ]
    near = difflib.get_close_matches(attribute, names, n=3)
    ordered = [*near, *(name for name in names if name not in near)]
    more = f", and {len(ordered) - 8} more" if len(ordered) > 8 else ""
    return ", ".join(ordered[:8]) + more if ordered else "nothing to call"


def _describe(error: BaseException, folder: Path) -> str:
    """Return type, first line of the message and the plug-in's line of an exception in one."""
    message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, SystemExit):
        message += " (code that runs a program belongs under: if __name__ == '__main__')"
    lines = [
        (Path(frame.filename), frame.lineno, frame.line or "")
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((Path(error.filename), error.lineno, (error.text or "").strip()))
    own = [line for line in lines if line[0].is_relative_to(folder)]
    for path, number, text in reversed(own):
        if "site-packages" not in path.relative_to(folder).parts:
            return f"{message} [{path}, line {number}: {text}]"
    return message
