"""Parts taken from a span, and UTF-8 checked in one."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core


def rows() -> Iterator[Row]:
    yield measure("span", "16 bytes taken", core.span_parts)
    for name, text in (("7 bytes of ASCII", b"digits7"), ("100 bytes of ASCII", b"x" * 100),
                       ("100 bytes of two-byte characters", "\u00e9".encode() * 50)):
        yield measure("utf8", name, partial(core.utf8_checks, text=text))
