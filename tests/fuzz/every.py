"""All readers there are."""

from __future__ import annotations

from tests.fuzz import commandlines, datafiles, resultfiles, texts
from tests.fuzz.harness import Reader

READERS: list[Reader] = [
    *texts.READERS,
    *datafiles.READERS,
    *resultfiles.READERS,
    commandlines.READER,
]
COMMAND_LINES = commandlines.READER.name
NAMES = [reader.name for reader in READERS]
