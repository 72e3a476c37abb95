"""Fetching files: complete ones arrive, anything else leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from isoloss.datasets.catalogue import DownloadError

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer; the libraries themselves would wait for ever


def download_files(
    name: str,
    fetch: Callable[[Path], Mapping[Path, Path]],
    folder: Path,
    *,
    files: str,
    address: str,
) -> None:
    """Fetch into a temporary folder beside the target and move what is complete.

    Args:
        name: of the data set, for messages.
        fetch: gets the temporary folder, fills it, and returns where each file is to go.
        folder: where files end up.
        files: what is fetched, for messages.
        address: where from.

    Raises:
        DownloadError: no place to write, or the files could not be had.
    """
    base = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        temporary = tempfile.TemporaryDirectory(prefix=".download-", dir=base)
    except OSError as error:
        raise DownloadError(
            f"{name}: expected a folder to download into, cannot write into {base} "
            f"({error.strerror}); choose another with `data_dir`"
        ) from error
    with temporary:
        try:
            with _quiet_and_impatient():
                fetched = fetch(Path(temporary.name))
        except Exception as error:  # each library has failures of its own kind
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise DownloadError(
                f"{name}: could not download {files}\n"
                f"from {address}: {reason}\n"
                f"check the network, or put the unpacked files into {folder}"
            ) from error
        for source, target in fetched.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)


@contextlib.contextmanager
def _quiet_and_impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # they print; stdout is for results
            yield
    finally:
        socket.setdefaulttimeout(before)
