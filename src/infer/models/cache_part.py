"""What a version gets of the cache: the bounds that were asked for, and whether its rows can be looked up one by one.

Pure but for what it logs.
"""

from __future__ import annotations

import logging
from typing import Any

from infer._core.model_version import VersionEntry
from infer.models.effective import LoadOptions, cache_limits

log = logging.getLogger("infer.models")


def cache_part(entry: VersionEntry, options: LoadOptions) -> dict[str, Any] | None:
    """For `Pipeline.attach`; None: its answers are not kept."""
    limits = cache_limits(entry.settings, options)
    if limits is not None and limits["rows"] and (why := not_by_rows(entry)):
        limits["rows"] = False
        # Of one model it was asked for; of all models each is taken for what it is.
        level = logging.WARNING if entry.settings.cache_rows else logging.INFO
        log.log(level, "the rows of model %r version %s are not looked up one by one (cache_rows): %s",
                entry.name.decode(), entry.version, why)
    return limits


def not_by_rows(entry: VersionEntry) -> str:
    """Why its rows cannot be looked up one by one; empty: they can. The rows of a reply, known ones and others, have to
    be of one shape: that of an output follows from the inputs' shapes, or from nothing."""
    if not entry.batched:
        return "it does not batch"
    for kind, tensors in (("input", entry.inputs), ("output", entry.outputs)):
        for each in tensors:
            if each.served and each.datatype == "BYTES":
                return f"the rows of {kind} {each.name!r} are BYTES, of any size"
    known = {name for each in entry.inputs if each.reshape is None for name in each.symbols[1:] if name}
    for each in entry.outputs:
        if not each.served or (each.shape is not None and -1 not in each.shape[1:]):
            continue
        if each.shape is None or each.reshape is not None or not {
                name for name, size in zip(each.symbols[1:], each.shape[1:], strict=True) if size < 0} <= known:
            return f"output {each.name!r} has a size that is no input's"
    return ""
