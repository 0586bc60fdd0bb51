"""A file's bytes, read and given back without the GIL.

Design note. Freeing a bytes object of a large file returns its pages to the kernel, which takes long, and Python does
so while it holds the GIL: the loop would stand still. A mapping of the file is no way out: one that is cut short while
it is looked at ends the process.

Memory: a FileContent owns its bytes and frees them when the last buffer over them is gone. Any thread.
"""

from os import fsencode, strerror

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.stat cimport fstat, struct_stat
from posix.unistd cimport close, read

cdef enum:
    FIRST_GROWTH_BYTES = 65536
    READ_BYTES = 1048576


cdef int read_all(int fd, uint8_t **data, int64_t *size_bytes) noexcept nogil:
    """0, or an errno; `data` is to be freed either way."""
    cdef struct_stat status
    cdef int64_t room
    cdef ssize_t count
    cdef void *grown
    if fstat(fd, &status) != 0:
        return errno
    # One more, so that the end is seen where the file does not grow meanwhile.
    room = status.st_size + 1
    data[0] = <uint8_t *> malloc(<size_t> room)
    if data[0] == NULL:
        return ENOMEM
    while True:
        if size_bytes[0] == room:
            room += max(room // 2, <int64_t> FIRST_GROWTH_BYTES)
            grown = realloc(data[0], <size_t> room)
            if grown == NULL:
                return ENOMEM
            data[0] = <uint8_t *> grown
        count = read(fd, data[0] + size_bytes[0], <size_t> min(room - size_bytes[0], <int64_t> READ_BYTES))
        if count == 0:
            return 0
        if count > 0:
            size_bytes[0] += count
        elif errno != EINTR:
            return errno


@cython.final
cdef class FileContent:
    """The file's bytes; a read-only buffer."""

    cdef uint8_t *data
    cdef int64_t size_bytes

    def __cinit__(self):
        self.data = NULL
        self.size_bytes = 0

    def __init__(self, path not None):
        cdef bytes encoded = fsencode(path)
        cdef const char *name = encoded
        cdef int fd
        cdef int code = 0
        if self.data != NULL:
            raise RuntimeError(f"{path} is read once")
        with nogil:
            fd = open(name, O_RDONLY | O_CLOEXEC)
            if fd < 0:
                code = errno
            else:
                code = read_all(fd, &self.data, &self.size_bytes)
                close(fd)
        if code == ENOMEM:
            raise MemoryError(f"no memory to read {path}")
        if code != 0:
            raise OSError(code, strerror(code), str(path))

    def __dealloc__(self):
        cdef uint8_t *data = self.data
        with nogil:
            free(data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, <Py_ssize_t> self.size_bytes, 1, flags)

    def __len__(self):
        return self.size_bytes

    def startswith(self, bytes prefix not None):
        return len(prefix) <= self.size_bytes and memcmp(self.data, <const char *> prefix, len(prefix)) == 0
