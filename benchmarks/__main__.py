"""Run one benchmark by name, or list them."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path

import isoloss

FILES = {f.parent.name: f for f in sorted(Path(__file__).parent.glob("[!_]*/__init__.py"))}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:] or [""]
    if name in FILES:
        # With several clones about, the one that is installed need not be this one.
        print(f"of isoloss at {isoloss.__path__[0]}", file=sys.stderr)
        import_module(f"benchmarks.{name}").main(arguments)
    else:
        for known, file in FILES.items():
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            print(f"{known:12} {text.splitlines()[0]}")
        sys.exit(f"expected a benchmark among {', '.join(FILES)}, got {name!r}" if name else 0)
