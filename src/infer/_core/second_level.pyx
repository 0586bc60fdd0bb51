"""Keys of requests and tails of answers for a second level of the cache. See second_level.pxd.

A key is the keyed BLAKE2b-256 of all that makes two requests ask for the same: the model's name, version, files and
tensors, the tenant, the wanted outputs, and each input's place, type, shape and bytes.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy

from infer._core.arena cimport at
from infer._core.block cimport block_data, block_new
from infer._core.cache cimport CachePart
from infer._core.flight cimport Flight
from infer._core.quota cimport Tenant
from infer._core.difference cimport Output
from infer._core.reply cimport encode_tail, item_slices, tail_bytes
from infer._core.reply_reader cimport output_named, read_tail
from infer._core.span cimport span_left
from infer._core.status cimport STATUS_FAILED_PRECONDITION, STATUS_OK
from infer._core.tensor_encode cimport OutputSlice
from infer._core.tensor_request cimport CACHE_NO_CACHE
from infer._core.tensor_text cimport say
from infer._core.tensor_view cimport TYPE_NONE, TensorSpec, TensorView, mask_has

import logging
from hashlib import blake2b
from struct import pack

KEY_BYTES = 32

cdef enum:
    FORWARDED_BYTES_MOST = 1048576   # a larger message is rather run than hashed and copied

log = logging.getLogger("infer.cache")


cdef object view_of(const void *data, uint64_t size_bytes):
    return PyMemoryView_FromMemory(<char *> data, <Py_ssize_t> size_bytes, PyBUF_READ)


cdef class Asked:
    def __cinit__(self):
        self.waits = True


@cython.final
cdef class SecondLevel:
    """`client` is asked; `secret` is the fleet's; `shared`: as the Cache's; `forwards`: other replicas are asked."""

    def __cinit__(self, client, bytes secret not None, *, bint shared=False, bint forwards=False):
        self.client = client
        self.forwards = forwards
        self.secret = secret
        self.shared = shared
        self.asked = {}
        self.scopes = {}
        self.tickets = 0
        self.failures = 0

    cdef bytes key_of(self, Request *request):
        cdef VersionEntry entry = <VersionEntry> request.version
        cdef Tenant *tenant = <Tenant *> request.tenant
        cdef const TensorView *view
        cdef int i
        scope = self.scopes.get(entry)
        if scope is None:
            scope = self.scopes[entry] = repr((
                entry.name, entry.version, entry.properties.get("sha256"),
                [(info.name, info.datatype, info.shape, info.reshape) for info in (*entry.inputs, *entry.outputs)],
                [info.served for info in entry.outputs])).encode()
        key = blake2b(pack("<Q", len(scope)) + scope, digest_size=KEY_BYTES, key=self.secret)
        if tenant == NULL or self.shared:
            key.update(pack("<q", -1))
        else:
            key.update(pack("<q", tenant.name_bytes))
            key.update(view_of(tenant.name, tenant.name_bytes))
        key.update(view_of(&request.outputs, sizeof(request.outputs)))
        for i in range(request.n_views):
            view = &request.views[i]
            if view.data_type == TYPE_NONE:
                continue
            key.update(pack("<iiiQ", i, view.data_type, view.rank, view.size_bytes))
            key.update(view_of(view.shape, <uint64_t> view.rank * sizeof(int64_t)))
            key.update(view_of(at(view.data), view.size_bytes))
        return key.digest()

    cdef bint ask(self, Request *request, const InferMessage *message) noexcept:
        cdef VersionEntry entry = <VersionEntry> request.version
        # What is kept there has no age, and what waits for it would lose its own time in the queue.
        if (message.cache_use == CACHE_NO_CACHE or message.max_age_ns >= 0 or message.timeout_us != 0
                or span_left(&message.forwarded) > 0 or "sha256" not in entry.properties):
            return False
        try:
            return self.put_to(request, message)
        except Exception as error:
            # Nobody is to answer it now.
            self.asked.pop(<uint64_t> request, None)
            self.failed(error)
            return False

    cdef bint put_to(self, Request *request, const InferMessage *message) except *:
        cdef Asked asked
        if self.forwards and span_left(&message.whole) > FORWARDED_BYTES_MOST:
            return self.client.stays()
        asked = Asked()
        self.tickets += 1
        asked.ticket = self.tickets
        asked.key = self.key_of(request)
        self.asked[<uint64_t> request] = asked
        if self.forwards:
            waits = self.forward(request, message, asked)
        else:
            waits = self.client.ask(asked.key, <uint64_t> request, asked.ticket)
        if not waits:
            del self.asked[<uint64_t> request]
        return waits

    cdef void failed(self, error) noexcept:
        """It is as if nothing had been asked; said once."""
        self.failures += 1
        if self.failures == 1:
            log.error("the second level of the cache fails, and requests are run without it: %r; "
                      "infer_cache_second_failures_total counts them", error)

    cdef bint forward(self, Request *request, const InferMessage *message, Asked asked) except *:
        cdef VersionEntry entry = <VersionEntry> request.version
        cdef Tenant *tenant = <Tenant *> request.tenant
        # Whose it is does not travel.
        if tenant != NULL and not self.shared:
            return False
        content = (<const char *> message.whole.at)[:span_left(&message.whole)]
        if not self.client.forward(asked.key, content, sha256=entry.properties["sha256"], prefix=entry.prefix,
                                   address=<uint64_t> request, ticket=asked.ticket):
            return False
        (<Flight *> request.flight).kept = 0
        return True

    cdef Request *claim(self, uint64_t address, int64_t ticket) noexcept:
        cdef Asked asked = self.asked.get(address)
        if asked is None or asked.ticket != ticket or not asked.waits:
            return NULL
        asked.waits = False
        return <Request *> address

    cdef void store(self, Request *leader, const Batch *batch, int index) noexcept:
        cdef Asked asked = self.asked.get(<uint64_t> leader)
        if asked is None or not (<Flight *> leader.flight).kept:
            return
        try:
            self.hand_over(leader, batch, index, asked)
        except Exception as error:
            self.failed(error)

    cdef hand_over(self, Request *leader, const Batch *batch, int index, Asked asked):
        cdef VersionEntry entry = <VersionEntry> leader.version
        cdef OutputSlice slices[256]
        cdef uint64_t size_bytes
        cdef bytes tail
        item_slices(batch, index, &leader.outputs, slices)
        size_bytes = tail_bytes(&entry.c.signature, &leader.outputs, slices, leader.rows)
        if not self.client.takes(size_bytes):
            return
        tail = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size_bytes)
        encode_tail(<uint8_t *> PyBytes_AS_STRING(tail), &entry.c.signature, &leader.outputs, slices, leader.rows)
        self.client.store(asked.key, tail, (<CachePart *> entry.c.cached).ttl_ns)

    cdef bint fits(self, const Request *request, bytes tail) noexcept:
        cdef VersionEntry entry = <VersionEntry> request.version
        cdef const TensorSpec *spec
        cdef const Output *output
        cdef int32_t wanted = 0
        cdef int i
        # What comes from a store has a seal.
        if not self.forwards:
            return True
        if not read_tail(<const uint8_t *> PyBytes_AS_STRING(tail), <uint64_t> PyBytes_GET_SIZE(tail), &self.read):
            return False
        for i in range(entry.c.signature.n_outputs):
            if not mask_has(&request.outputs, i):
                continue
            wanted += 1
            spec = &entry.c.signature.outputs[i]
            output = output_named(&self.read, spec.name, spec.name_bytes)
            if (output == NULL or output.data_type != spec.data_type
                    or (entry.c.signature.batched and (output.rank == 0 or output.shape[0] != request.rows))):
                return False
        return self.read.count == wanted

    cdef void leave(self, Request *request) noexcept:
        self.asked.pop(<uint64_t> request, None)

    cdef void forget(self, VersionEntry entry) noexcept:
        self.scopes.pop(entry, None)


cdef int admit_forwarded(VersionEntry entry, const InferMessage *message, ErrorText *error) noexcept:
    cdef bytes meant = (<const char *> message.forwarded.at)[:span_left(&message.forwarded)]
    if entry.properties.get("sha256", "").encode() == meant:
        return STATUS_OK
    say(error, "another replica has forwarded the request for other files of model '")
    say(error, entry.c.name)
    say(error, "' version ")
    say(error, entry.c.number)
    say(error, " than are served here; send it without the parameter `infer_forwarded`")
    return STATUS_FAILED_PRECONDITION


cdef Block *block_of(bytes content) noexcept:
    cdef Block *block = block_new(<uint64_t> PyBytes_GET_SIZE(content))
    if block != NULL:
        block.size_bytes = <uint64_t> PyBytes_GET_SIZE(content)
        memcpy(block_data(block), PyBytes_AS_STRING(content), block.size_bytes)
    return block
