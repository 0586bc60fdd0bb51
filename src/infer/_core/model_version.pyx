"""VersionEntry and TensorInfo: a model version as everything above the session sees it.

Made, closed and dropped on the loop thread; owns the strings and specs that its Signature points to.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_DECREF
from libc.stdint cimport INT64_MAX
from libc.string cimport memset

from infer._core.counters cimport bucket_floor, snapshot
from infer._core.fair_share cimport WEIGHT_MAX
from infer._core.queue_policy cimport policy_free, policy_new
from infer._core.queue_policy import REFUSAL_NAMES
from infer._core.status cimport STATUS_CODES
from infer._core.tensor cimport data_type_name, encode_prefix, encode_text_parameter
from infer._core.tensor_view cimport MAX_OUTPUTS, MAX_RANK, TYPE_NONE, ModelShape, TensorSpec


# Why batches leave, as metrics name it; in the order of batch_policy.Why.
LEFT = ("full", "shape", "idle", "delay", "deadline")
# By the numbers of Fallback.
FALLBACK_NAMES = (b"none", b"previous", b"static", b"unavailable")


cdef class TensorInfo:
    """One declared input or output: name, element type (ONNX number and protocol name), shape with -1 for any.

    reshape: the model's own shape, where requests and replies carry `shape`; its -1 stand for those of `shape`, in
    their order.
    """

    def __cinit__(self, str name not None, int data_type, shape, symbols=(), *, served=True, optional=False,
                  datatype=None, reshape=None):
        self.name = name
        self.data_type = data_type
        self.datatype = datatype if datatype is not None else data_type_name(data_type).decode()
        self.shape = None if shape is None else tuple(shape)
        self.symbols = tuple(symbols) or ("",) * (0 if shape is None else len(shape))
        self.served = served and data_type != TYPE_NONE
        self.optional = optional
        self.reshape = None if reshape is None else tuple(reshape)

    def __repr__(self):
        dims = "?" if self.shape is None else ",".join(
            symbol or str(size) for symbol, size in zip(self.symbols, self.shape, strict=True))
        return f"{self.name} {self.datatype} [{dims}]"


cdef uint64_t product(tuple dims) except? -1:
    """Elements of a shape whose dimensions are all known, else 0."""
    cdef uint64_t elements = 1
    for size in dims:
        if size < 0:
            return 0
        elements *= <uint64_t> size
    return elements


cdef class VersionEntry:
    """A served model version. `closing` and the handle count decide when `on_drained` is called."""

    def __cinit__(self):
        memset(&self.c, 0, sizeof(self.c))
        memset(&self.stats, 0, sizeof(self.stats))
        self.sizes = NULL
        self.n_sizes = 0
        self.reshaped = NULL
        self.n_reshaped = 0

    def __init__(self, str name not None, str version not None, session, list inputs not None, list outputs not None, *,
                 bint batched, int64_t max_rows, int64_t gather_rows, int64_t delay_ns, int64_t queue_limit_rows,
                 int max_running, dict properties not None, int64_t queue_limit_bytes=INT64_MAX, int64_t weight=1,
                 int levels=0, int default_level=0, policies=()):
        if len(outputs) > MAX_OUTPUTS:
            raise ValueError(f"model {name!r} has {len(outputs)} outputs, at most {MAX_OUTPUTS} can be served")
        if any(max(len(each.shape), len(each.reshape)) > MAX_RANK for each in (*inputs, *outputs)
               if each.reshape is not None):
            raise ValueError(f"model {name!r} has a reshape of more than {MAX_RANK} dimensions")
        if min(max_rows, gather_rows, queue_limit_rows, queue_limit_bytes, max_running) < 1 or delay_ns < 0:
            raise ValueError(f"model {name!r}: max_rows {max_rows}, gather_rows {gather_rows}, queue_limit_rows "
                             f"{queue_limit_rows}, queue_limit_bytes {queue_limit_bytes} and max_running "
                             f"{max_running} must be at least 1, "
                             f"delay_ns {delay_ns} at least 0")
        if not 0 < weight <= WEIGHT_MAX:
            raise ValueError(f"model {name!r}: weight {weight} must be from 1 to {WEIGHT_MAX}")
        self.name = name.encode()
        self.version = version
        self.prefix = encode_prefix(self.name, version.encode())
        self.marked = (self.prefix, *(self.prefix + encode_text_parameter(b"infer_fallback", name)
                                      for name in FALLBACK_NAMES[1:FALLBACK_UNAVAILABLE]))
        self.inputs = inputs
        self.outputs = outputs
        self.properties = properties
        self.session = session
        self.guard = None
        self.taps = ()
        self.on_drained = None
        number = version.encode()
        self._strings = [self.name, number]
        self.c.name = self.name
        self.c.number = number
        self.c.signature.model = self.name
        self.c.signature.batched = batched
        self.reshaped = <ModelShape *> PyMem_Calloc(
            max(1, sum(each.reshape is not None for each in (*inputs, *outputs))), sizeof(ModelShape))
        if self.reshaped == NULL:
            raise MemoryError("no memory for the model's signature")
        self.c.signature.max_rows = max_rows
        self.c.signature.inputs = self.specs(inputs, batched)
        self.c.signature.n_inputs = <int32_t> len(inputs)
        self.c.signature.outputs = self.specs(outputs, batched)
        self.c.signature.n_outputs = <int32_t> len(outputs)
        self.c.gather_rows = gather_rows if batched else 1
        self.c.delay_ns = delay_ns if batched else 0
        self.c.queue_limit_rows = queue_limit_rows
        self.c.queue_limit_bytes = queue_limit_bytes
        self.c.max_running = max_running
        self.c.weight = weight
        self.c.policy = policy_new(levels, default_level, policies)
        self.n_sizes = size_slot(max(max_rows, gather_rows)) + 1
        self.sizes = <SizeStats *> PyMem_Calloc(self.n_sizes, sizeof(SizeStats))
        if self.sizes == NULL:
            raise MemoryError("no memory for the version's statistics")

    cdef TensorSpec *specs(self, list tensors, bint batched) except? NULL:
        """Specs of the tensors, their names kept alive by this entry."""
        cdef TensorSpec *specs = <TensorSpec *> PyMem_Calloc(max(1, len(tensors)), sizeof(TensorSpec))
        cdef TensorInfo info
        cdef bytes name
        cdef int i, k
        if specs == NULL:
            raise MemoryError("no memory for the model's signature")
        for i in range(len(tensors)):
            info = tensors[i]
            name = info.name.encode()
            self._strings.append(name)
            specs[i].name = name
            specs[i].name_bytes = <uint64_t> len(name)
            specs[i].data_type = info.data_type
            specs[i].served = info.served
            specs[i].optional = info.optional
            specs[i].rank = -1 if info.shape is None or len(info.shape) > MAX_RANK else <int32_t> len(info.shape)
            if specs[i].rank < 0:
                continue
            for k in range(specs[i].rank):
                specs[i].shape[k] = info.shape[k]
            if batched and specs[i].rank > 0:
                specs[i].shape[0] = -1
            specs[i].row_elements = product(info.shape[1:] if batched else info.shape)
            if info.reshape is not None:
                specs[i].reshaped = self.model_shape(info.reshape, batched)
        return specs

    cdef const ModelShape *model_shape(self, tuple shape, bint batched) noexcept:
        cdef ModelShape *taken = &self.reshaped[self.n_reshaped]
        cdef int k
        self.n_reshaped += 1
        taken.rank = <int32_t> len(shape)
        for k in range(taken.rank):
            taken.shape[k] = <int64_t> shape[k]
        if batched and taken.rank > 0:
            taken.shape[0] = -1
        return taken

    def __dealloc__(self):
        PyMem_Free(self.c.signature.inputs)
        PyMem_Free(self.c.signature.outputs)
        PyMem_Free(self.reshaped)
        PyMem_Free(self.sizes)
        policy_free(self.c.policy)

    @property
    def batched(self):
        return bool(self.c.signature.batched)

    @property
    def max_rows(self):
        return self.c.signature.max_rows

    @property
    def gather_rows(self):
        return self.c.gather_rows

    @property
    def delay_ns(self):
        return self.c.delay_ns

    @property
    def queue_limit_rows(self):
        return self.c.queue_limit_rows

    @property
    def queue_limit_bytes(self):
        return self.c.queue_limit_bytes

    @property
    def weight(self):
        return self.c.weight

    @property
    def levels(self):
        return self.c.policy.levels if self.c.policy != NULL else 0

    @property
    def max_running(self):
        return self.c.max_running

    @property
    def handles(self):
        return self.c.handles

    @property
    def cache_stats(self):
        """Those of CacheStats by name; None where its answers are not kept."""
        return self.stats.cache if self.c.cached != NULL else None

    def close(self, on_drained):
        """Takes no new requests; `on_drained()` is called once the last handle is gone, at once if there is none."""
        if self.c.closing:
            raise RuntimeError(f"{self!r} is closed already")
        self.c.closing = 1
        self.on_drained = on_drained
        if self.c.handles == 0:
            call_drained(self)

    def stats_snapshot(self, tuple second_bounds_ns not None, tuple row_bounds not None):
        """Counters as Python objects: calls (by gRPC code), rows, ..., `cache_stats` as cache, (count, sum,
        cumulative) per histogram, and batch_sizes: (rows, runs, gather_ns, run_ns, scatter_ns) of each size that was
        run."""
        cdef int code
        return {
            "calls": [self.stats.calls[code] for code in range(STATUS_CODES)],
            "rows": self.stats.rows,
            "batches": self.stats.batches,
            "last_inference_ms": self.stats.last_inference_ms,
            "request_ns": self.stats.request_ns,
            "failed_ns": self.stats.failed_ns,
            "queue_refused": {name: self.stats.refused[code] for code, name in enumerate(REFUSAL_NAMES)},
            "expired": {"queue": self.stats.expired_queued, "run": self.stats.expired_running},
            "queue_delayed": self.stats.delayed,
            "charged_ns": self.c.charged_ns,
            "batches_left": {reason: self.c.left[i] for i, reason in enumerate(LEFT)},
            "queue_ns": self.stats.queue_ns,
            "gather_ns": self.stats.gather_ns,
            "run_ns": self.stats.run_ns,
            "scatter_ns": self.stats.scatter_ns,
            "executor_ns": self.c.executor_ns,
            "cache": self.cache_stats,
            "request": snapshot(&self.stats.request, second_bounds_ns),
            "queue": snapshot(&self.stats.queue, second_bounds_ns),
            "compute": snapshot(&self.stats.compute, second_bounds_ns),
            "batch_rows": snapshot(&self.stats.batch_rows, row_bounds),
            "batch_sizes": sizes_of(self),
        }

    def __repr__(self):
        return f"<VersionEntry {self.name.decode()} version {self.version}>"


cdef list sizes_of(VersionEntry entry):
    """(rows, runs, gather_ns, run_ns, scatter_ns) of each size that was run, smallest first; a size above EXACT_ROWS
    stands for itself and those of its log bucket below it."""
    cdef SizeStats *size
    cdef int64_t rows
    cdef int slot
    listed = []
    for slot in range(entry.n_sizes):
        size = &entry.sizes[slot]
        if size.runs == 0:
            continue
        rows = slot if slot <= EXACT_ROWS else bucket_floor(slot - EXACT_ROWS + bucket_of(EXACT_ROWS)) - 1
        listed.append((rows, size.runs, size.gather_ns, size.run_ns, size.scatter_ns))
    return listed


cdef void call_drained(VersionEntry entry) noexcept:
    callback = entry.on_drained
    entry.on_drained = None
    if callback is not None:
        callback()


@cython.final
cdef class Hold:
    """A handle that Python has from its making until `drop`: the version does not unload meanwhile. Loop thread."""

    cdef VersionEntry entry

    def __cinit__(self, VersionEntry entry not None):
        take_handle(entry)
        self.entry = entry

    def drop(self):
        entry, self.entry = self.entry, None
        drop_handle(entry)


cdef void drop_handle(VersionEntry entry) noexcept:
    entry.c.handles -= 1
    if entry.c.handles:
        return
    if entry.c.closing:
        call_drained(entry)
    Py_DECREF(entry)
