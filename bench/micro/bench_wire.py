"""Fields stepped over, strings validated."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_tensor as core


def rows() -> Iterator[Row]:
    short = b"".join(core.write_bytes(number, b"value") for number in range(1, 9))
    varints = b"".join(core.write_varint(number << 3) + core.write_varint(1 << 40) for number in range(1, 9))
    group = core.write_varint(9 << 3 | 3) + short + core.write_varint(9 << 3 | 4)
    yield measure("wire", "try_field, 8 strings", partial(core.time_fields, short))
    yield measure("wire", "try_field, 8 varints of 6 bytes", partial(core.time_fields, varints))
    yield measure("wire", "try_field, a group of 8 strings skipped", partial(core.time_fields, group))
    for text in ("tiny", "a model's longer name", "g\u00f6\u00dfe"):
        yield measure("wire", f"is_utf8, {len(text)} characters{'' if text.isascii() else ', not ASCII'}",
                      partial(core.time_utf8, text.encode()))
