"""Measurements behind what the documents claim; run from the repository's root.

    python -m benchmarks            lists them
    python -m benchmarks coverage   runs one; -h shows its options

A benchmark is a file here with a docstring and a `main(arguments)`. None is part of the package.
"""
