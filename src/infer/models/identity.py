"""What a version is, by its files: SHA-256 of each and over all, sizes, operator sets, exporter, MLflow run.

Computed on the loader's thread before a load, so that what is loaded is what was named; hashing runs without the GIL.
Where there is a SHA256SUMS, as sha256sum writes it, it has to list the model's file and its data, and every file that
it lists has to be as it says. The marker `_READY` and SHA256SUMS itself are no part of the identity.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infer._core.file_content import FileContent
from infer.errors import ModelLoadError
from infer.models.contents import Contents, locations, read_contents, read_file
from infer.models.listing import Entry, Listing, file_fault
from infer.models.settle import MARKER
from infer.models.snapshot import VersionFiles

CHECKSUMS = "SHA256SUMS"
# Of SHA256SUMS; a line has some hundred bytes, and a version at most a thousand files.
CHECKSUM_BYTES_MOST = 1 << 20
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


@dataclass(frozen=True)
class Identity:
    sha256: str                             # over all files: of lines as in SHA256SUMS, in the order of their names
    files: Mapping[str, tuple[str, int]]    # SHA-256 and size in bytes, by path in the version's directory
    contents: Contents
    verified: bool                          # by a SHA256SUMS

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.files.values())

    def properties(self) -> dict[str, str]:
        """For model metadata and `infer models`."""
        said = {"sha256": self.sha256, "size_bytes": str(self.total_bytes),
                "checksums": "verified" if self.verified else "none"}
        facts, run = self.contents.facts, self.contents.mlflow
        if facts is not None:
            opsets = [f"{domain or 'ai.onnx'} {number}" for domain, number in facts["opsets"].items()]
            said |= {"opset": ", ".join(opsets), "ir_version": str(facts["ir_version"]),
                     "producer": facts["producer"], "producer_version": facts["producer_version"],
                     "domain": facts["domain"], "model_version": str(facts["model_version"] or "")}
            said |= {f"metadata.{key}": value for key, value in facts["metadata"].items()}
        if run is not None:
            said |= {"mlflow.run_id": run.run_id, "mlflow.model_uuid": run.model_uuid, "mlflow.version": run.version,
                     "mlflow.created": run.created, "mlflow.inputs": run.inputs, "mlflow.outputs": run.outputs}
        return {key: value for key, value in said.items() if value}

    def to_json(self) -> str:
        """Of the files, for the audit log."""
        return json.dumps({"sha256": self.sha256, "files": {path: digest for path, (digest, _) in self.files.items()}},
                          sort_keys=True)


def identify(version: VersionFiles, filename: str | None = None, require_checksums: bool = False) -> Identity:
    """Raises ModelLoadError where the files are not what SHA256SUMS says, or cannot be loaded; OSError where they
    cannot be read. `filename`: what the configuration names."""
    listing, entries = _entries(version)
    if version.alone:
        contents = read_contents(listing, version.directory, filename)
    else:
        contents = read_file(entries[version.path.name], version.root)
    if contents.problem is not None:
        raise ModelLoadError(str(contents.problem))
    files = {}
    for path, entry in sorted(entries.items()):
        if entry.is_file and not file_fault(entry, listing.root if version.root else version.directory):
            with entry.real.open("rb") as file:
                files[path] = hashlib.file_digest(file, "sha256").hexdigest(), entry.stamp.size_bytes
    sums = files.pop(CHECKSUMS, None)
    verified = sums is not None
    needed = _needed(version, contents)
    if verified:
        verify(entries[CHECKSUMS].real, {path: digest for path, (digest, _) in files.items()}, needed)
    elif require_checksums:
        raise ModelLoadError(f"{version.directory}: there is no {CHECKSUMS}, and --require-checksums asks for one; "
                             f"write it: cd {version.directory} && sha256sum {' '.join(needed)} > {CHECKSUMS}")
    lines = "".join(f"{digest}  {path}\n" for path, (digest, _) in files.items())
    return Identity(hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest(), files, contents, verified)


def _entries(version: VersionFiles) -> tuple[Listing, dict[str, Entry]]:
    root = version.root or version.directory
    listing = Listing(root)
    if version.alone:
        return listing, {path: entry for path, entry in listing.walk(version.directory) if path != MARKER}
    status = version.path.stat()
    entries = {version.path.name: Entry(version.path.name, version.path, version.path, status)}
    for name in (CHECKSUMS, *locations(FileContent(version.path))):
        beside = version.path.parent / name
        if beside.is_file():
            entries[name] = Entry(name, beside, beside, beside.stat())
    if CHECKSUMS in entries and not _lists(entries[CHECKSUMS].real, version.path.name):
        del entries[CHECKSUMS]      # of other files in the directory
    return listing, entries


def _needed(version: VersionFiles, contents: Contents) -> list[str]:
    """The files without which it is not this model."""
    file = contents.file or version.path
    return [str((file.parent / name).relative_to(version.directory)) for name in (file.name, *contents.external)]


def _lists(checksums: Path, name: str) -> bool:
    try:
        return name in parse_checksums(checksums)
    except ModelLoadError:
        return False


def parse_checksums(path: Path) -> dict[str, str]:
    """Digest by name. Raises ModelLoadError with the line that is not as sha256sum writes it."""
    with path.open("rb") as file:
        content = file.read(CHECKSUM_BYTES_MOST + 1)
    if len(content) > CHECKSUM_BYTES_MOST:
        raise ModelLoadError(f"{path}: expected at most {CHECKSUM_BYTES_MOST} bytes; write it with sha256sum")
    sums = {}
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match:
            sums[match[2].removeprefix("./")] = match[1].lower()
        elif line.strip() and not line.startswith("#"):
            raise ModelLoadError(f"{path}:{number}: expected a SHA-256 and a file name, got {line[:80]!r}; write it "
                                 "with sha256sum")
    return sums


def verify(checksums: Path, digests: Mapping[str, str], needed: list[str]) -> None:
    """Raises ModelLoadError with every file that is not as SHA256SUMS says, is missing, or is needed and not listed."""
    sums = parse_checksums(checksums)
    wrong = [f"{path}: expected SHA-256 {digest}, got {digests.get(path, 'no such file')}"
             for path, digest in sums.items() if digests.get(path) != digest]
    wrong += [f"{path}: is not listed" for path in needed if path not in sums]
    if wrong:
        raise ModelLoadError(f"{checksums}: the files are not those that it lists: {'; '.join(wrong)}; copy the "
                             "version again, or write SHA256SUMS anew if the files are right")
