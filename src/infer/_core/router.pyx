"""RouteTable: open addressing over model names, and of each model over its versions and labels; built once, read on the
loop thread.

Hashes are FNV-1a, which is enough: keys are the operator's names, and what a client names is compared whole.
"""

from collections import namedtuple

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memcmp
from libc.stdint cimport uint8_t

from infer._core.model_version cimport VersionEntry
from infer._core.span cimport span_left, span_over
from infer._core.status cimport STATUS_INVALID_ARGUMENT, STATUS_NOT_FOUND, STATUS_OK
from infer._core.tensor cimport say, say_name

from infer import errors

cdef enum:
    MAX_NAME_BYTES = 128
    MAX_VERSION_DIGITS = 18
    SMALLEST_TABLE = 8
    SMALLEST_MODEL = 2

# How one model is routed; whatever has these attributes will do. `unready` says by version or label why a known one is
# not served, `reason` why there is no default; both as (gRPC code, text). `split`: where requests go that name no
# version, or None: to the default.
ModelRoute = namedtuple("ModelRoute", "versions labels default unready reason split",
                        defaults=((), {}, None, {}, None, None))


def number_of(entry):
    return int(entry.version)


def route_to_highest(versions):
    """The route of a model without labels, whose highest version is the default."""
    ordered = sorted(versions, key=number_of, reverse=True)
    return ModelRoute(tuple(ordered), default=ordered[0])


cdef inline uint64_t hash_on(uint64_t value, const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t i
    for i in range(size_bytes):
        value = (value ^ data[i]) * 1099511628211ULL
    return value


cdef inline uint64_t hash_name(const Span *name) noexcept nogil:
    return hash_on(14695981039346656037ULL, name.at, span_left(name))


cdef bint name_is_valid(const uint8_t *name, uint64_t size_bytes) noexcept nogil:
    """Of a model or label, as far as its characters go."""
    cdef uint64_t i
    cdef uint8_t c
    if size_bytes > MAX_NAME_BYTES:
        return False
    for i in range(size_bytes):
        c = name[i]
        if not (c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9' or c == c'_' or c == c'.' or c == c'-'):
            return False
    return True


cdef bint is_number(const uint8_t *version, uint64_t size_bytes) noexcept nogil:
    """Digits alone, perhaps behind a minus: never a label."""
    cdef uint64_t i
    cdef uint64_t first = 1 if size_bytes > 1 and version[0] == c'-' else 0
    for i in range(first, size_bytes):
        if not (c'0' <= version[i] <= c'9'):
            return False
    return True


cdef bint version_is_valid(const uint8_t *version, uint64_t size_bytes) noexcept nogil:
    """A version number as directories have it, or a label."""
    if not is_number(version, size_bytes):
        return name_is_valid(version, size_bytes)
    return size_bytes <= MAX_VERSION_DIGITS and version[0] != c'0' and version[0] != c'-'


cdef uint64_t table_size(uint64_t keys, uint64_t smallest) noexcept:
    """At most half full, so that a search ends soon."""
    cdef uint64_t size = smallest
    while size < 2 * keys:
        size *= 2
    return size


cdef VersionSlot *find_version(const ModelSlot *model, const Span *version) noexcept nogil:
    cdef uint64_t size = span_left(version)
    cdef uint64_t h = hash_name(version)
    cdef uint64_t at = h & model.version_mask
    cdef VersionSlot *slot
    while True:
        slot = &model.versions[at]
        if slot.key == NULL:
            return NULL
        if slot.hash == h and slot.key_bytes == size and memcmp(slot.key, version.at, size) == 0:
            return slot
        at = (at + 1) & model.version_mask


cdef class ModelPart:
    """One model of a table. Immutable; it owns what its slot borrows."""

    def __cinit__(self):
        self.slot.versions = NULL

    def __init__(self, str name not None, route not None):
        cdef uint64_t size
        cdef Span span
        self.name = name.encode()
        self.route = route
        self.falling = tuple(sorted(route.versions, key=number_of, reverse=True))
        self.refusals = []
        self.keys = []
        span = span_over(<const uint8_t *> <const char *> self.name, <uint64_t> len(self.name))
        size = table_size(len(route.versions) + len(route.labels) + len(route.unready), SMALLEST_MODEL)
        self.slot.versions = <VersionSlot *> PyMem_Calloc(size, sizeof(VersionSlot))
        if self.slot.versions == NULL:
            raise MemoryError("no memory for the route of a model")
        self.slot.version_mask = size - 1
        self.slot.hash = hash_name(&span)
        self.slot.name = self.name
        self.slot.name_bytes = span_left(&span)
        self.slot.model = <void *> self
        if route.default is None and route.reason is None:
            raise ValueError(f"model {name!r} has neither a default version nor a reason for having none")
        for entry in [*route.labels.values(), route.default]:
            if entry is not None and entry not in route.versions:
                raise ValueError(f"model {name!r} leads to {entry!r}, which is not one of its versions")
        self.slot.entry = NULL if route.default is None else <void *> <VersionEntry?> route.default
        self.slot.refusal = self.refusal_index(route.reason if route.default is None else None)
        self.split = getattr(route, "split", None)
        self.slot.split = NULL if self.split is None else <void *> self.split
        for entry in route.versions:
            self.add_version(entry.version, entry, None)
        for label, entry in route.labels.items():
            self.add_version(label, entry, None)
        for key, refusal in route.unready.items():
            self.add_version(key, None, refusal)

    def __dealloc__(self):
        PyMem_Free(self.slot.versions)

    cdef add_version(self, str key, object entry, object refusal):
        cdef bytes encoded = key.encode()
        cdef Span span = span_over(<const uint8_t *> <const char *> encoded, <uint64_t> len(encoded))
        cdef VersionSlot *slot
        cdef uint64_t h = hash_name(&span)
        cdef uint64_t at = h & self.slot.version_mask
        if not span_left(&span) or not version_is_valid(span.at, span_left(&span)):
            raise ValueError(f"model {self.name.decode()!r}: {key!r} is neither a version nor a label")
        if find_version(&self.slot, &span) != NULL:
            raise ValueError(f"model {self.name.decode()!r} has two versions or labels {key!r}")
        while self.slot.versions[at].key != NULL:
            at = (at + 1) & self.slot.version_mask
        slot = &self.slot.versions[at]
        slot.hash = h
        slot.key = encoded
        slot.key_bytes = span_left(&span)
        slot.entry = NULL if entry is None else <void *> <VersionEntry?> entry
        slot.refusal = self.refusal_index(refusal)
        self.keys.append(encoded)

    cdef int32_t refusal_index(self, object refusal) except -2:
        """Where the refusal is kept; -1 for None."""
        if refusal is None:
            return -1
        code, text = refusal
        self.refusals.append((<int> code, (<str> text).encode()))
        return <int32_t> len(self.refusals) - 1


cdef class RouteTable:
    """Models by name: `models` gives (name, ModelRoute) pairs."""

    def __cinit__(self):
        self.models_by_name = NULL
        self.model_mask = 0

    def __init__(self, models not None):
        cdef dict parts = {}
        for name, route in models:
            if name in parts:
                raise ValueError(f"model {name!r} is in the route table twice")
            parts[name] = ModelPart(name, route)
        self.fill(parts)

    def __dealloc__(self):
        PyMem_Free(self.models_by_name)

    cdef fill(self, dict parts):
        cdef ModelPart part
        cdef uint64_t at
        cdef uint64_t size = table_size(len(parts), SMALLEST_TABLE)
        self.parts = parts
        self.models_by_name = <ModelSlot *> PyMem_Calloc(size, sizeof(ModelSlot))
        if self.models_by_name == NULL:
            raise MemoryError("no memory for the route table")
        self.model_mask = size - 1
        for part in parts.values():
            at = part.slot.hash & self.model_mask
            while self.models_by_name[at].name != NULL:
                at = (at + 1) & self.model_mask
            self.models_by_name[at] = part.slot

    def with_changes(self, changes not None):
        """The next table: `changes` has the routes that are others, by name, None for a model that is not known any
        more. All else it shares with this one. In the order of this one, or of the names once one is new."""
        cdef RouteTable table = RouteTable.__new__(RouteTable)
        cdef dict parts = dict(self.parts)
        cdef bint grown = False
        for name, route in changes.items():
            if route is None:
                parts.pop(name, None)
                continue
            grown = grown or name not in parts
            parts[name] = ModelPart(name, route)
        table.fill(dict(sorted(parts.items())) if grown else parts)
        return table

    cdef ModelSlot *find(self, const Span *name) noexcept:
        cdef uint64_t size = span_left(name)
        cdef uint64_t h = hash_name(name)
        cdef uint64_t at = h & self.model_mask
        cdef ModelSlot *slot
        while True:
            slot = &self.models_by_name[at]
            if slot.name == NULL:
                return NULL
            if slot.hash == h and slot.name_bytes == size and memcmp(slot.name, name.at, size) == 0:
                return slot
            at = (at + 1) & self.model_mask

    cdef void *route(self, const Span *name, const Span *version, const ModelSlot **model, int *code,
                     ErrorText *error) noexcept:
        cdef ModelSlot *slot = self.find(name)
        cdef VersionSlot *found
        cdef void *entry
        cdef int32_t refusal
        model[0] = slot
        if slot == NULL:
            return self.refuse_name(name, code, error)
        if span_left(version) == 0:
            entry = slot.entry
            refusal = slot.refusal
        else:
            found = find_version(slot, version)
            if found == NULL:
                return self.refuse_version(slot, version, code, error)
            entry = found.entry
            refusal = found.refusal
        if entry == NULL:
            return self.refuse(slot, refusal, code, error)
        code[0] = STATUS_OK
        return entry

    cdef void *below(self, VersionEntry entry, int nth) noexcept:
        cdef Span name = span_over(<const uint8_t *> entry.c.name, <uint64_t> len(entry.name))
        cdef ModelSlot *model = self.find(&name)
        cdef tuple falling
        cdef Py_ssize_t i
        if model == NULL:
            return NULL
        falling = (<ModelPart> model.model).falling
        for i in range(len(falling)):
            if falling[i] is entry:
                return <void *> falling[i + 1 + nth] if i + 1 + nth < len(falling) else NULL
        return NULL

    cdef void *refuse(self, const ModelSlot *model, int32_t refusal, int *code, ErrorText *error) noexcept:
        reason = (<ModelPart> model.model).refusals[refusal]
        say(error, <bytes> reason[1])
        code[0] = reason[0]
        return NULL

    cdef void *refuse_version(self, const ModelSlot *model, const Span *version, int *code, ErrorText *error) noexcept:
        """A version or label that is not known, or cannot be one."""
        cdef uint64_t size = span_left(version)
        cdef bint number = is_number(version.at, size)
        if not version_is_valid(version.at, size):
            say(error, "version ")
            say_name(error, version.at, size)
            say(error, " of model '")
            say(error, model.name)
            say(error, "' is not a version number or label: expected 1 to 18 digits without a leading zero, a label of "
                       "1 to 128 of A-Z a-z 0-9 _ . -, or nothing for the default")
            code[0] = STATUS_INVALID_ARGUMENT
            return NULL
        route = (<ModelPart> model.model).route
        if not route.versions and not route.unready:
            return self.refuse(model, model.refusal, code, error)
        say(error, "model '")
        say(error, model.name)
        say(error, "' has no version " if number else "' has no label ")
        say_name(error, version.at, size)
        say_keys(error, "; served: ", [entry.version for entry in route.versions])
        say_keys(error, "; labels: ", list(route.labels))
        say_keys(error, "; not ready: ", list(route.unready))
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
        """The VersionEntry that a request for `name` and `version` ("": the default) goes to; raises InferError."""
        cdef bytes name_bytes = name.encode()
        cdef bytes version_bytes = version.encode()
        cdef Span name_span = span_over(<const uint8_t *> <const char *> name_bytes, <uint64_t> len(name_bytes))
        cdef Span version_span = span_over(<const uint8_t *> <const char *> version_bytes,
                                           <uint64_t> len(version_bytes))
        cdef ErrorText error
        cdef const ModelSlot *model
        cdef int code = STATUS_OK
        cdef void *entry
        error.size_bytes = 0
        error.text[0] = 0
        entry = self.route(&name_span, &version_span, &model, &code, &error)
        if entry == NULL:
            raise errors.InferError(error.text[:error.size_bytes].decode(), code)
        return <VersionEntry> entry

    def models(self):
        """[(name, [VersionEntry, ...] as the route has them), ...] in the order given."""
        cdef ModelPart part
        return [(name, list(part.route.versions)) for name, part in self.parts.items()]

    def entries(self):
        """Every VersionEntry, model by model, each model's last first."""
        cdef ModelPart part
        found = []
        for part in self.parts.values():
            found += part.route.versions[::-1]
        return found

    def route_of(self, str name not None):
        """The model's route as it was given, or None."""
        cdef ModelPart part = self.parts.get(name)
        return None if part is None else part.route


cdef void say_keys(ErrorText *error, const char *intro, list keys) noexcept:
    """Versions or labels after what they are; nothing where there are none."""
    cdef bytes text = ", ".join(keys).encode()
    if keys:
        say(error, intro)
        say(error, text)
