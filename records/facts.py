"""What was found when a run began."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from isoloss.records.json_text import check_entries

# Types of the entries by annotation; all others are objects.
KINDS: dict[str, tuple[type, ...]] = {
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "str": (str,),
}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was found, as opposed to asked for, when a run began; anything may be missing.

    Attributes:
        parameters: Number of entries of the network's parameters.
        receptive_field: In pixels, where it applies.
        samples: Samples by split.
        data_dir: Folder of the data.
        data_digest: Of all splits.
        data: What is known of the data, as `DataInfo` writes it.
        device: Kind of device.
        threads: Threads of one process.
        processes: Processes that trained together.
        intel: Version of Intel's extension where asked for, and whether it was loaded.
        command: The command line.
        versions: Of Python and packages.
        git: Commit of the source tree.
        plugins: SHA-256 of the user's files, or versions of modules, that took part, by role.
        imported_from: File of weights from elsewhere.
        imported_sha256: Its SHA-256.
        imported: How it was read: the entry taken (`key`), whether that was asked for (`chosen`),
            and whether it was unpickled, which runs code from the file (`unpickled`).
    """

    parameters: int | None = None
    receptive_field: int | None = None
    samples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    data_dir: str | None = None
    data_digest: str | None = None
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    device: str | None = None
    threads: int | None = None
    processes: int | None = None
    intel: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    git: str | None = None
    plugins: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    imported_from: str | None = None
    imported_sha256: str | None = None
    imported: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, stored: Mapping[str, Any], what: str = "the facts of a run") -> Facts:
        """Return stored facts; those that this version does not know are left out.

        Args:
            stored: By name.
            what: What to call them in an error.

        Raises:
            FileError: If one is of another type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        known = {name: value for name, value in stored.items() if name in fields}
        kinds = {name: KINDS.get(str(fields[name].type), (dict,)) for name in known}
        check_entries(known, kinds, what)
        return cls(**known)
