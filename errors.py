"""The roots of the errors that are written for people to read: expected, got, remedy.

A text names an option or argument in backticks, `samples`; the command line writes --samples.
"""

from __future__ import annotations


class IsolossError(Exception):
    """What cannot be done, and what to do instead."""


class UsageError(IsolossError):
    """What is asked for does not exist or makes no sense: ask for something else."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error that is none of ours says that memory ran out.

    It is known by its name and text: without torch, none of torch's is raised.
    """
    if isinstance(error, IsolossError):
        return False
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY)


# Of torch's allocators on Linux and macOS, on Windows, and of Apple's and Intel's GPUs; of cuBLAS.
_OUT_OF_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
)  # fmt: skip
