"""Weights that lie outside a model's file, checked before the runtime opens them.

A model file names such files itself, so one from a stranger could name any. They must lie in the model's own
directory, by a relative path, through no link that leads out, and under that name only (a hard link would bring in a
file from anywhere). Any thread; the walk over the file runs without the GIL.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from infer._core.external_data import external_entries
from infer._core.file_content import FileContent
from infer.errors import ModelLoadError
from infer.models.inside import LeadsOut, has_other_names, resolve_inside

# The runtime's mark of a tensor in its own memory; from a file it would be an address to read.
_MEMORY_MARK = "_ORT_MEM_ADDR_"
_SHOWN_CHARACTERS = 80


def check_external_data(model: Path, root: Path | None = None) -> int:
    """Bytes of the files that hold the model's external data, each counted once; 0 for a model without.

    The model's file may be a link to anywhere below `root`, an ancestor, and its data to beside that. Raises
    ModelLoadError for a malformed model file and for data that is missing, cut short or from elsewhere.
    """
    return sum(external_files(model, FileContent(model), root).values())


def external_files(model: Path, content: bytes | FileContent, root: Path | None = None) -> dict[str, int]:
    """Sizes of those files by location, as `check_external_data`, of a model whose content has been read."""
    tensors = external_entries(content)
    if tensors is None:
        raise ModelLoadError(f"{model.name} is not an ONNX model, or only a part of one; look at what it is, copy or "
                             "export the model again")
    sizes: dict[str, int] = {}
    homes = [model.parent] if root is None or not tensors else [model.parent, resolve_inside(root, model).parent]
    for entries in tensors:
        locations = [value for key, value in entries if key == "location"]
        for location in locations:
            if location not in sizes:
                sizes[location] = _check_location(homes, location, root or model.parent)
        if locations:
            _check_range(dict(entries), sizes[locations[-1]])
        else:
            raise ModelLoadError("a tensor with external data does not say in which file; export the model again")
    return sizes


def _shown(location: str) -> str:
    return repr(location if len(location) <= _SHOWN_CHARACTERS else location[:_SHOWN_CHARACTERS] + "...")


def _check_location(homes: Sequence[Path], location: str, root: Path) -> int:
    """Size of the file; raises where it is not in the model's directory, the first of `homes`, or where that is a link,
    in the directory that the model's file is in. The runtime refuses to look elsewhere."""
    refused = f"external data {_shown(location)} is refused: "
    advice = "; put the file beside the model, and export the model with a plain file name as location"
    if not location or "\0" in location or _MEMORY_MARK in location:
        raise ModelLoadError(f"{refused}it is not a file name{advice}")
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor or "\\" in location:
        raise ModelLoadError(f"{refused}the path is not relative{advice}")
    if ".." in PurePosixPath(location).parts:
        raise ModelLoadError(f"{refused}the path leads out of the model's directory{advice}")
    try:
        path = resolve_inside(root, homes[0] / location)
        status = path.lstat()
        if not any(path.is_relative_to(home) for home in homes):
            raise LeadsOut
    except LeadsOut:
        raise ModelLoadError(f"{refused}a symbolic link leads out of the model's directory; copy the file "
                             "there") from None
    except FileNotFoundError:
        raise ModelLoadError(f"external data {_shown(location)} is missing; copy it beside the model") from None
    except OSError as error:
        raise ModelLoadError(f"external data {_shown(location)} cannot be read: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelLoadError(f"{refused}it is not a regular file")
    if has_other_names(status):
        raise ModelLoadError(f"{refused}the file has {status.st_nlink} names (hard links), so it may belong elsewhere; "
                             "copy it: cp FILE FILE.copy && mv FILE.copy FILE")
    return status.st_size


def _check_range(entry: dict[str, str], size: int) -> None:
    try:
        offset, length = int(entry.get("offset", "0")), int(entry.get("length", "0"))
    except ValueError:
        raise ModelLoadError(f"external data {_shown(entry['location'])} has an offset or length that is not a number; "
                             "export the model again") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelLoadError(f"external data {_shown(entry['location'])} has {size} bytes, the model needs bytes "
                             f"{offset} to {offset + length}; the copy was cut short, copy it again")
