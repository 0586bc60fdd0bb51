"""connectconformance in server mode over gRPC: every case of it, none known to fail."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.tools import go_tool
from tests.support.command import REPOSITORY, environment

pytestmark = [pytest.mark.conformance, pytest.mark.long]

VERSION = "v1.0.5"
SECONDS = 300
CONFIGURATION = """
features:
  versions: [HTTP_VERSION_2]
  protocols: [PROTOCOL_GRPC]
  codecs: [CODEC_PROTO]
  compressions: [COMPRESSION_IDENTITY]
  supportsH2c: true
  supportsTls: true
  supportsTlsClientCerts: true
  supportsTrailers: true
  supportsMessageReceiveLimit: true
"""
LEAST_CASES = 196


def test_every_case(tmp_path: Path) -> None:
    program = go_tool("connectconformance", "connectrpc.com/conformance/cmd/connectconformance", VERSION)
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(CONFIGURATION)
    done = subprocess.run(
        [program, "--mode", "server", "--conf", configuration, "--", sys.executable, "-m",
         "tests.conformance.services", "--connect"],
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A configuration that left features out would pass too, with fewer cases.
    counts = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.M)
    assert counts, done.stdout + done.stderr
    assert int(counts[1]) >= LEAST_CASES
    assert counts[2] == "0"
