"""Compression by a thread that gets only the time nobody else wants; the caller waits without the GIL."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from infer._core.block cimport Block, block_data, block_unref
from infer._core.grpc_message cimport (
    ENCODING_DEFLATE, PREFIX_BYTES, Deflation, deflate_add, deflate_begin, deflate_end)
from infer._core.idle_thread cimport run_idle

cdef struct Work:
    const uint8_t *data
    uint64_t size_bytes
    Block *block                 # what it came to, behind a prefix; NULL: no smaller, or there is no memory


cdef void carry_out(void *argument) noexcept nogil:
    cdef Work *work = <Work *> argument
    cdef Deflation deflation
    work.block = NULL
    if deflate_begin(&deflation, ENCODING_DEFLATE, work.size_bytes, False):
        deflate_add(&deflation, work.data, work.size_bytes, True)
        work.block = deflate_end(&deflation)


def compress(bytes content not None):
    """As zlib.compress (RFC 1950); None where that would not be smaller, or there is no memory for it."""
    cdef Work work
    cdef bytes found
    work.data = <const uint8_t *> PyBytes_AS_STRING(content)
    work.size_bytes = <uint64_t> PyBytes_GET_SIZE(content)
    with nogil:
        run_idle(carry_out, &work)
    if work.block == NULL:
        return None
    found = PyBytes_FromStringAndSize(<const char *> block_data(work.block) + PREFIX_BYTES,
                                      <Py_ssize_t> (work.block.size_bytes - PREFIX_BYTES))
    block_unref(work.block)
    return found
