"""RouteTable: open addressing over model names, built once, read on the loop thread.

Names are hashed by FNV-1a, which is enough: keys are the operator's model names, and a client's name is compared whole.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memcmp, strncmp
from libc.stdint cimport uint8_t

from infer._core.span cimport span_left
from infer._core.status cimport STATUS_INVALID_ARGUMENT, STATUS_NOT_FOUND, STATUS_OK
from infer._core.tensor cimport say, say_name

from infer import errors

cdef enum:
    MAX_NAME_BYTES = 128
    MAX_VERSION_DIGITS = 18


cdef uint64_t hash_name(const uint8_t *name, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t value = 14695981039346656037ULL
    cdef uint64_t i
    for i in range(size_bytes):
        value = (value ^ name[i]) * 1099511628211ULL
    return value


cdef bint name_is_valid(const uint8_t *name, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t i
    cdef uint8_t c
    if size_bytes > MAX_NAME_BYTES:
        return False
    for i in range(size_bytes):
        c = name[i]
        if not (c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9' or c == c'_' or c == c'.' or c == c'-'):
            return False
    return True


cdef bint version_is_valid(const uint8_t *version, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t i
    if size_bytes == 0 or size_bytes > MAX_VERSION_DIGITS or version[0] == c'0':
        return False
    for i in range(size_bytes):
        if not (c'0' <= version[i] <= c'9'):
            return False
    return True


cdef class RouteTable:
    """Models by name, each with its servable versions, highest first, or the reason why it has none.

    `models` is a list of (name, [VersionEntry, ...], reason): reason is None or (gRPC code, text) and is answered where
    the list is empty.
    """

    def __cinit__(self):
        self.slots = NULL
        self.mask = 0

    def __init__(self, list models not None):
        cdef uint64_t size = 8, at, h
        cdef bytes encoded
        cdef RouteSlot *slot
        while size < 2 * len(models):
            size *= 2
        self.slots = <RouteSlot *> PyMem_Calloc(size, sizeof(RouteSlot))
        if self.slots == NULL:
            raise MemoryError("no memory for the route table")
        self.mask = size - 1
        self.entries = []
        self.unready = []
        self.names = []
        for name, versions, reason in models:
            encoded = name.encode()
            self.names.append(encoded)
            h = hash_name(encoded, len(encoded))
            at = h & self.mask
            while self.slots[at].name != NULL:
                if encoded == self.slots[at].name[:self.slots[at].name_bytes]:
                    raise ValueError(f"model {name!r} is in the route table twice")
                at = (at + 1) & self.mask
            slot = &self.slots[at]
            slot.hash = h
            slot.name = encoded
            slot.name_bytes = <uint64_t> len(encoded)
            slot.count = <int32_t> len(versions)
            slot.first = <int32_t> len(self.entries) if versions else -1
            slot.reason = -1
            if not versions:
                slot.reason = <int32_t> len(self.unready)
                code, text = reason
                self.unready.append((code, text.encode()))
            self.entries.extend(sorted(versions, key=lambda entry: int(entry.version), reverse=True))

    def __dealloc__(self):
        PyMem_Free(self.slots)

    cdef RouteSlot *find(self, const Span *name) noexcept:
        cdef uint64_t size = span_left(name)
        cdef uint64_t h = hash_name(name.at, size)
        cdef uint64_t at = h & self.mask
        cdef RouteSlot *slot
        while True:
            slot = &self.slots[at]
            if slot.name == NULL:
                return NULL
            if slot.hash == h and slot.name_bytes == size and memcmp(slot.name, name.at, size) == 0:
                return slot
            at = (at + 1) & self.mask

    cdef void *route(self, const Span *name, const Span *version, int *code, ErrorText *error) noexcept:
        cdef RouteSlot *slot = self.find(name)
        cdef VersionEntry entry
        cdef uint64_t digits = span_left(version)
        cdef int32_t i
        if slot == NULL:
            return self.refuse_name(name, code, error)
        if digits != 0 and not version_is_valid(version.at, digits):
            say(error, "version ")
            say_name(error, version.at, digits)
            say(error, " of model '")
            say(error, slot.name)
            say(error, "' is not a version number: expected 1 to 18 digits without a leading zero, "
                       "or nothing for the highest")
            code[0] = STATUS_INVALID_ARGUMENT
            return NULL
        if slot.first < 0:
            reason = self.unready[slot.reason]
            say(error, <bytes> reason[1])
            code[0] = reason[0]
            return NULL
        code[0] = STATUS_OK
        if digits == 0:
            return <void *> <VersionEntry> self.entries[slot.first]
        for i in range(slot.first, slot.first + slot.count):
            entry = <VersionEntry> self.entries[i]
            if strncmp(entry.c.number, <const char *> version.at, digits) == 0 and entry.c.number[digits] == 0:
                return <void *> entry
        say(error, "model '")
        say(error, slot.name)
        say(error, "' has no version ")
        say_name(error, version.at, digits)
        say(error, "; served: ")
        for i in range(slot.first, slot.first + slot.count):
            entry = <VersionEntry> self.entries[i]
            if i > slot.first:
                say(error, ", ")
            say(error, entry.c.number)
        code[0] = STATUS_NOT_FOUND
        return NULL

    cdef void *refuse_name(self, const Span *name, int *code, ErrorText *error) noexcept:
        cdef uint64_t size = span_left(name)
        if not name_is_valid(name.at, size):
            say(error, "model name ")
            say_name(error, name.at, size)
            say(error, " is not allowed: expected 1 to 128 of A-Z a-z 0-9 _ . -")
            code[0] = STATUS_INVALID_ARGUMENT
            return NULL
        if size == 0:
            say(error, "the request names no model: set model_name")
        else:
            say(error, "unknown model ")
            say_name(error, name.at, size)
            say(error, "; check the name against the models that the server lists at its start")
        code[0] = STATUS_NOT_FOUND
        return NULL

    def lookup(self, str name not None, str version not None=""):
        """The VersionEntry that a request for `name` and `version` ("": the highest) goes to; raises InferError."""
        cdef bytes name_bytes = name.encode()
        cdef bytes version_bytes = version.encode()
        cdef Span name_span, version_span
        cdef ErrorText error
        cdef int code = STATUS_OK
        cdef void *entry
        name_span.at = <const uint8_t *> <const char *> name_bytes
        name_span.end = name_span.at + len(name_bytes)
        version_span.at = <const uint8_t *> <const char *> version_bytes
        version_span.end = version_span.at + len(version_bytes)
        error.size_bytes = 0
        error.text[0] = 0
        entry = self.route(&name_span, &version_span, &code, &error)
        if entry == NULL:
            raise errors.InferError(error.text[:error.size_bytes].decode(), code)
        return <VersionEntry> entry

    def models(self):
        """[(name, [VersionEntry, ...] highest first), ...] in the order given."""
        cdef Span span
        cdef RouteSlot *slot
        cdef bytes name
        listed = []
        for name in self.names:
            span.at = <const uint8_t *> <const char *> name
            span.end = span.at + len(name)
            slot = self.find(&span)
            listed.append((name.decode(), [self.entries[slot.first + i] for i in range(slot.count)]))
        return listed
