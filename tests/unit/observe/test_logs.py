"""Logs: forms, and a writer that is never in the way."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from infer.observe.logs import JsonFormatter, QueuedHandler, TextFormatter, configure


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("test.logs")
    logger.propagate = False
    logger.setLevel("DEBUG")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def attach(logger: logging.Logger, handler: QueuedHandler) -> QueuedHandler:
    logger.addHandler(handler)
    return handler


def test_json_lines(logger: logging.Logger) -> None:
    stream = io.StringIO()
    handler = attach(logger, QueuedHandler(stream, JsonFormatter()))
    logger.info("loaded %s", "m\n\u00e9", extra={"other": [1], "version": "1", "model": "m"})
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    handler.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert list(first) == ["ts", "level", "msg", "logger", "model", "version", "other"]
    assert (first["level"], first["msg"]) == ("info", "loaded m\n\u00e9")
    assert (first["logger"], first["model"], first["version"]) == ("test.logs", "m", "1")
    assert first["ts"][10] == "T"
    assert first["ts"].endswith("Z")
    assert second["level"] == "error"
    assert "ValueError: bad" in second["exception"]


def test_text_lines(logger: logging.Logger) -> None:
    stream = io.StringIO()
    handler = attach(logger, QueuedHandler(stream, TextFormatter()))
    logger.warning("slow", extra={"model": "m", "duration_ms": 3.5})
    handler.close()
    clock, rest = stream.getvalue().split(" ", 1)
    assert len(clock) == len("12:34:56.789")
    assert rest == "WARNING slow model=m duration_ms=3.5\n"


def test_arguments_are_formatted_when_logged(logger: logging.Logger) -> None:
    stream, names = io.StringIO(), ["a"]
    handler = attach(logger, QueuedHandler(stream, TextFormatter()))
    logger.info("models %s", names)
    names.append("b")
    handler.close()
    assert stream.getvalue().endswith("models ['a']\n")


class BlockedStream(io.StringIO):
    """A pipe that nobody reads, until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.opened = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.opened.wait()
        return super().write(text)


def test_f52_blocked_pipe_drops_and_counts_and_blocks_nobody(logger: logging.Logger) -> None:
    stream = BlockedStream()
    handler = attach(logger, QueuedHandler(stream, TextFormatter(), queue_lines=3))
    logger.info("first")
    stream.entered.wait()
    for number in range(5):
        logger.info("line %d", number)
    assert handler.dropped == 2
    stream.opened.set()
    handler.close()
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == ["INFO    first", *(f"INFO    line {number}" for number in range(3)), "WARNING 2 log lines dropped"]


def test_f32_full_disk_counts(logger: logging.Logger) -> None:
    with open("/dev/full", "w") as stream:
        handler = attach(logger, QueuedHandler(stream, TextFormatter()))
        logger.info("lost")
        logger.info("lost")
        handler.close()
        assert handler.dropped == 2


def test_non_blocking_pipe_is_written_whole(logger: logging.Logger) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "x" * (1 << 20)
    with open(reading) as source, open(writing, "w") as stream:
        handler = attach(logger, QueuedHandler(stream, TextFormatter()))
        logger.info(text)
        assert source.readline().endswith(text + "\n")
        handler.close()


def test_what_is_queued_at_exit_is_written() -> None:
    script = ("import logging\nfrom infer.observe.logs import configure\nconfigure('info', None)\n"
              "for number in range(1000): logging.info('line %d', number)\nlogging.debug('hidden')\n")
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    messages = [json.loads(line)["msg"] for line in done.stderr.splitlines()]
    assert messages == [f"line {number}" for number in range(1000)]


def test_configuring_again_replaces_the_handler() -> None:
    root = logging.getLogger()
    level = root.level
    try:
        first = configure("info", "text", io.StringIO())
        second = configure("debug", "json", io.StringIO())
        assert [handler for handler in root.handlers if isinstance(handler, QueuedHandler)] == [second]
        assert root.level == logging.DEBUG
        assert first not in root.handlers
    finally:
        root.removeHandler(second)
        second.close()
        root.setLevel(level)
