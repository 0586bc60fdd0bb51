"""Logs on stderr: JSON lines off a terminal, text on one.

A record is handed to a bounded queue and written by a thread of its own, so that a blocked pipe never blocks a caller:
what does not fit is dropped and counted. Any thread may log. What is queued at exit is written, within a time limit.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import select
import sys
import threading
import time
from typing import Any, TextIO

QUEUE_LINES = 8192
EXIT_SECONDS = 2.0
KEYS = ("model", "version", "code", "duration_ms", "request_id", "trace_id", "span_id")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`, the keys that have a meaning everywhere first."""
    given = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {key: given[key] for key in (*KEYS, *given) if key in given}


class JsonFormatter(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        line = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "logger": record.name,
            **_extra(record),
        }
        if record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time of day, level, message, then key=value."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03}"
        pairs = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = f"{clock} {record.levelname:<7} {record.getMessage()}{pairs}"
        return f"{line}\n{record.exc_text}" if record.exc_text else line


class QueuedHandler(logging.Handler):
    """Writes records to a stream from a daemon thread; `dropped` counts the lines that were lost."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter, queue_lines: int = QUEUE_LINES) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.dropped = 0
        self._reported = 0
        self._stream = stream
        try:
            # The descriptor itself: a daemon thread inside the stream's buffer would trip the interpreter's last flush.
            self._descriptor: int | None = stream.fileno()
        except (OSError, AttributeError):
            self._descriptor = None
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(queue_lines)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="infer-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            record.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        # Arguments may change before the thread formats them.
        record.msg, record.args = record.getMessage(), None
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Writes what is queued and ends the thread; gives up after EXIT_SECONDS."""
        if not self._closing.is_set():
            self._closing.set()
            # Wakes the thread where it waits; where the queue is full it does not, and sees _closing at the end.
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)
            self._thread.join(EXIT_SECONDS)
        super().close()

    def _drain(self) -> None:
        while True:
            try:
                record = self._queue.get(block=not self._closing.is_set())
            except queue.Empty:
                return
            if record is not None:
                self._write(self.format(record))
            if self.dropped > self._reported and self._queue.qsize() == 0:
                lost, self._reported = self.dropped - self._reported, self.dropped
                notice = logging.makeLogRecord(
                    {"name": "infer.log", "levelname": "WARNING", "msg": f"{lost} log lines dropped"})
                self._write(self.format(notice))

    def _write(self, line: str) -> None:
        try:
            if self._descriptor is None:
                self._stream.write(line + "\n")
                self._stream.flush()
            else:
                _write_whole(self._descriptor, (line + "\n").encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):
            self.dropped += 1
            self._reported += 1


def _write_whole(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest):]
        except BlockingIOError:
            select.select([], [descriptor], [])


def configure(level: str, form: str | None, stream: TextIO | None = None) -> QueuedHandler:
    """Sends every record from `level` on to `stream` (stderr), as `form` or by whether it is a terminal."""
    stream = stream or sys.stderr
    form = form or ("text" if stream.isatty() else "json")
    handler = QueuedHandler(stream, TextFormatter() if form == "text" else JsonFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, QueuedHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    atexit.register(handler.close)
    return handler
