"""A file's bytes, read and given back without the GIL.

Design note. Freeing a bytes object of a large file returns its pages to the kernel, which takes long, and Python does
so while it holds the GIL: the loop would stand still. A mapping of the file is no way out: one that is cut short while
it is looked at ends the process.

Memory: a FileContent owns its bytes, pages of their own that go back to the kernel when the last buffer over them is
gone; the allocator would keep what it freed, and a load is judged by all that is held at its height. Any thread.
"""

from os import fsencode, strerror

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memcpy
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.stat cimport fstat, struct_stat
from posix.unistd cimport close, read

cdef enum:
    FIRST_GROWTH_BYTES = 65536
    READ_BYTES = 1048576


cdef struct Pages:
    uint8_t *data
    int64_t room                     # bytes that are mapped
    int64_t size_bytes               # of the file


cdef bint grow(Pages *pages, int64_t room) noexcept nogil:
    cdef void *grown = mmap(NULL, <size_t> room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if grown == MAP_FAILED:
        return False
    if pages.data != NULL:
        memcpy(grown, pages.data, <size_t> pages.size_bytes)
        munmap(pages.data, <size_t> pages.room)
    pages.data = <uint8_t *> grown
    pages.room = room
    return True


cdef int read_all(int fd, Pages *pages) noexcept nogil:
    """0, or an errno; the pages are to be given back either way."""
    cdef struct_stat status
    cdef ssize_t count
    if fstat(fd, &status) != 0:
        return errno
    # One more, so that the end is seen where the file does not grow meanwhile.
    if not grow(pages, status.st_size + 1):
        return ENOMEM
    while True:
        if pages.size_bytes == pages.room and not grow(
                pages, pages.room + max(pages.room // 2, <int64_t> FIRST_GROWTH_BYTES)):
            return ENOMEM
        count = read(fd, pages.data + pages.size_bytes,
                     <size_t> min(pages.room - pages.size_bytes, <int64_t> READ_BYTES))
        if count == 0:
            return 0
        if count > 0:
            pages.size_bytes += count
        elif errno != EINTR:
            return errno


@cython.final
cdef class FileContent:
    """The file's bytes; a read-only buffer."""

    cdef Pages pages

    def __cinit__(self):
        self.pages.data = NULL
        self.pages.room = 0
        self.pages.size_bytes = 0

    def __init__(self, path not None):
        cdef bytes encoded = fsencode(path)
        cdef const char *name = encoded
        cdef int fd
        cdef int code = 0
        if self.pages.data != NULL:
            raise RuntimeError(f"{path} is read once")
        with nogil:
            fd = open(name, O_RDONLY | O_CLOEXEC)
            if fd < 0:
                code = errno
            else:
                code = read_all(fd, &self.pages)
                close(fd)
        if code == ENOMEM:
            raise MemoryError(f"no memory to read {path}")
        if code != 0:
            raise OSError(code, strerror(code), str(path))

    def __dealloc__(self):
        if self.pages.data == NULL:
            return
        with nogil:
            munmap(self.pages.data, <size_t> self.pages.room)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.pages.data, <Py_ssize_t> self.pages.size_bytes, 1, flags)

    def __len__(self):
        return self.pages.size_bytes

    def startswith(self, bytes prefix not None):
        return len(prefix) <= self.pages.size_bytes and memcmp(self.pages.data, <const char *> prefix, len(prefix)) == 0
