"""A second level of the prediction cache, which servers share: what is asked of it, and what it is given.

Either it holds answers itself, under keys; or other replicas do, each those of its keys: then requests are forwarded to
the one that has theirs, and what comes back is kept there alone.

Loop thread. It is asked for what the first level does not have, by a request that leads its flight and waits
meanwhile; the client outside answers within its own time, or says that it has nothing. Keys and answers are bytes of
Python's: each request that asks costs some, and none does where there is no second level.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from infer._core.batch cimport Batch
from infer._core.block cimport Block
from infer._core.model_version cimport VersionEntry
from infer._core.reply_reader cimport ReplyOutputs
from infer._core.request cimport Request
from infer._core.tensor_request cimport InferMessage
from infer._core.tensor_text cimport ErrorText

# Of one Request, from when it asks until it is freed.
cdef class Asked:
    cdef bytes key
    cdef int64_t ticket          # tells it from others that have had the same address
    cdef bint waits


@cython.final
cdef class SecondLevel:
    cdef object client           # Client, or with `forwards` Forwarder
    cdef bint forwards
    cdef bytes secret
    cdef bint shared
    cdef dict asked              # Asked by address
    cdef dict scopes             # what is the same of all keys of a VersionEntry
    cdef int64_t tickets
    cdef readonly int64_t failures         # exceptions of the client
    cdef ReplyOutputs read
    # Whether it is asked. The client then calls the pipeline, which claims the request. A request that was forwarded
    # is never asked for again.
    cdef bint ask(self, Request *request, const InferMessage *message) noexcept
    # The request that still waits, or NULL.
    cdef Request *claim(self, uint64_t address, int64_t ticket) noexcept
    # A leader's run gave an answer.
    cdef void store(self, Request *leader, const Batch *batch, int index) noexcept
    cdef void leave(self, Request *request) noexcept
    cdef void forget(self, VersionEntry entry) noexcept
    # Whether it is an answer to the request: another replica may say anything.
    cdef bint fits(self, const Request *request, bytes tail) noexcept
    cdef bytes key_of(self, Request *request)
    cdef bint put_to(self, Request *request, const InferMessage *message) except *
    cdef bint forward(self, Request *request, const InferMessage *message, Asked asked) except *
    cdef hand_over(self, Request *leader, const Batch *batch, int index, Asked asked)
    cdef void failed(self, error) noexcept

# Whether a request that another replica has forwarded means the files that the version was made of. STATUS_OK, or
# STATUS_FAILED_PRECONDITION with a text.
cdef int admit_forwarded(VersionEntry entry, const InferMessage *message, ErrorText *error) noexcept
# A copy in the arena; NULL: no memory.
cdef Block *block_of(bytes content) noexcept
