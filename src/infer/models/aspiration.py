"""Which incarnations of a model's versions shall serve: its policy and its labels over what is there. Pure.

A version whose files are gone, or are being written anew, is served from memory while the policy or a label names it,
and while the policy finds nothing else: it cannot be loaded again, but nothing takes it away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from infer.models.harness import Key
from infer.models.snapshot import ModelSeen, VersionFiles
from infer.models.version_policy import aspired


def aspired_keys(seen: ModelSeen, *, generation: int, ready: Mapping[int, Key], wanted: Mapping[str, int],
                 held: Mapping[str, int], leaving: Collection[int] = ()) -> dict[Key, VersionFiles | None]:
    """The incarnations that shall serve; None for the files of one that is there in memory alone.

    `ready`: what serves now, by version. `wanted`, `held`: labels as they shall point and as they do. `leaving`:
    versions whose directories are being deleted.
    """
    there: dict[int, tuple[Key, VersionFiles | None]] = {}
    for version, files in seen.versions.items():
        if files.whole and version not in leaving:
            there[version] = Key(version, files.fingerprint, generation), files
        elif version in ready:
            there[version] = ready[version], None
    policy = seen.settings.policy
    chosen = set(aspired(policy, there))
    if policy.kind == "specific":
        chosen |= aspired(policy, ready)
    chosen = chosen or set(ready)
    # An old version that a label has not left yet stays where memory allows it.
    labelled = {*wanted.values(), *(held.values() if seen.settings.availability_preserving else ())}
    chosen |= labelled & (there.keys() | ready.keys())
    return dict(there[version] if version in there else (ready[version], None) for version in chosen)
