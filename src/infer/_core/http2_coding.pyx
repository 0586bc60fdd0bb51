"""Inflates requests and compresses replies. See http2_coding.pxd.

Source: gRPC `doc/compression.md`.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from infer._core.block cimport block_data, block_unref
from infer._core.debug cimport try_malloc
from infer._core.grpc_message cimport (
    ENCODING_GZIP, INFLATE_CORRUPT, INFLATE_CUT_SHORT, INFLATE_NO_MEMORY, INFLATE_TOO_LONG, INFLATE_TRAILING, INFLATED,
    PREFIX_BYTES, Deflation, claimed_length, deflate_add, deflate_begin, deflate_end, inflate_message)
from infer._core.grpc_stream cimport SEEN_TOO_LONG, STREAM_CALLED, STREAM_TALKING, set_end, take_body
from infer._core.http2_replies cimport error
from infer._core.retry_info cimport BUSY_PUSHBACK_MS
from infer._core.status cimport STATUS_INTERNAL, STATUS_RESOURCE_EXHAUSTED, STATUS_UNAVAILABLE
from infer._core.tensor cimport say, say_int

cimport cython

cdef const char *NO_ROOM = "the server's memory for requests is used up; retry later or send to another replica"


cdef Block *deflate_segments(int encoding, const Segment *segments, int count, uint64_t size_bytes, bint on_loop
                             ) noexcept nogil:
    cdef Deflation deflation
    cdef uint64_t skipped = PREFIX_BYTES
    cdef uint64_t at
    cdef int i
    if not deflate_begin(&deflation, encoding, size_bytes - PREFIX_BYTES, on_loop):
        return NULL
    for i in range(count):
        # The prefix may end in any segment.
        at = min(skipped, segments[i].size_bytes)
        skipped -= at
        deflate_add(&deflation, segments[i].data + at, segments[i].size_bytes - at, i + 1 == count)
    return deflate_end(&deflation)


@cython.final
cdef class CodingJob:
    """Run by any thread, then given to `session.finish_coding` by the loop thread."""

    def __cinit__(self):
        self.stream = NULL
        self.source = NULL
        self.segments = NULL
        self.result = NULL

    def __dealloc__(self):
        # Nothing is left, but of a job that was lost with its loop.
        block_unref(self.result)
        self.free_source()

    def run(self):
        """What the worker does. Never raises."""
        with nogil:
            if self.abandoned:
                self.outcome = INFLATE_CORRUPT
            elif self.inflates:
                self.outcome = inflate_message(
                    self.encoding, block_data(self.source) + self.start, self.size_bytes, self.limit_bytes, False,
                    &self.result)
            else:
                self.result = deflate_segments(
                    self.encoding, self.segments, self.n_segments, self.size_bytes, False)

    cdef void free_source(self) noexcept:
        cdef int i
        block_unref(self.source)
        self.source = NULL
        for i in range(self.n_segments):
            block_unref(self.segments[i].block)
        self.n_segments = 0
        free(self.segments)
        self.segments = NULL


cdef class CodingSession(Http2Session):
    """See http2_coding.pxd. StreamingSession is its one subclass."""

    # Requests.

    cdef void inflate(self, Stream *stream) noexcept:
        cdef uint64_t start = stream.lead + PREFIX_BYTES
        cdef uint64_t size_bytes = stream.message_bytes - start
        cdef uint64_t room = min(<uint64_t> self.inline_bytes, <uint64_t> self.limits.max_message_bytes)
        cdef Block *body = take_body(stream)
        cdef Block *inflated = NULL
        cdef const uint8_t *data = block_data(body) + start
        cdef int outcome
        if size_bytes <= INLINE_SOURCE_BYTES and claimed_length(stream.encoding, data, size_bytes) <= room:
            outcome = inflate_message(stream.encoding, data, size_bytes, room, True, &inflated)
            if outcome != INFLATE_TOO_LONG or room == <uint64_t> self.limits.max_message_bytes:
                self.inline_bytes -= <int64_t> (room if inflated == NULL else inflated.size_bytes)
                block_unref(body)
                self.release(stream, size_bytes)
                self.take_inflated(stream, outcome, inflated)
                return
            self.inline_bytes = 0
        self.inflate_later(stream, body, start, size_bytes)

    cdef void take_inflated(self, Stream *stream, int outcome, Block *inflated) noexcept:
        error.size_bytes = 0
        if outcome == INFLATED and self.is_over_limit(inflated.size_bytes):
            block_unref(inflated)
            outcome = INFLATE_NO_MEMORY
        if outcome == INFLATED:
            self.stats.inflated_bytes += <int64_t> inflated.size_bytes
            self.buffer(stream, inflated.size_bytes)
            self.hand_over(stream, inflated, 0, inflated.size_bytes)
            return
        if outcome == INFLATE_TOO_LONG:
            stream.seen |= SEEN_TOO_LONG
            say(&error, "the message has more than ")
            say_int(&error, self.limits.max_message_bytes)
            say(&error, " bytes once inflated, which is the limit (--max-message-bytes); send less in one call or "
                        "raise it")
            self.refuse_size(stream)
            return
        if outcome == INFLATE_NO_MEMORY:
            say(&error, NO_ROOM)
            self.refuse_size(stream)
            return
        if outcome == INFLATE_CUT_SHORT:
            say(&error, "the compressed message is cut short")
        elif outcome == INFLATE_TRAILING:
            say(&error, "the compressed message goes on after its end")
        else:
            say(&error, "the compressed message is not what its grpc-encoding says")
        self.refuse(stream, 200, STATUS_INTERNAL)

    cdef void inflate_later(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes) noexcept:
        cdef CodingJob job
        error.size_bytes = 0
        if self.stats.coding_jobs >= self.limits.coding_jobs:
            block_unref(body)
            self.stats.coding_refused += 1
            say(&error, "too many compressed messages wait to be inflated (--max-coding-jobs); retry later or send to "
                        "another replica")
            self.end_refused(stream, 200, STATUS_RESOURCE_EXHAUSTED, BUSY_PUSHBACK_MS)
            return
        job = CodingJob.__new__(CodingJob)
        job.inflates = True
        job.encoding = stream.encoding
        job.source = body
        job.start = start
        job.size_bytes = size_bytes
        job.limit_bytes = min(max(CLAIM_GROWTH * size_bytes, <uint64_t> CLAIM_BYTES),
                              <uint64_t> self.limits.max_message_bytes)
        if job.encoding == ENCODING_GZIP:
            # More than it says to have would be an error in any case.
            job.limit_bytes = min(<uint64_t> claimed_length(job.encoding, block_data(body) + start, size_bytes),
                                  <uint64_t> self.limits.max_message_bytes)
        job.stream = stream
        # From now on the job's.
        self.release(stream, size_bytes)
        self.start_inflating(stream, job)

    cdef bint start_inflating(self, Stream *stream, CodingJob job) noexcept:
        error.size_bytes = 0
        if self.is_over_limit(job.size_bytes + job.limit_bytes):
            job.free_source()
            say(&error, NO_ROOM)
            self.refuse_size(stream)
            return False
        stream.inflating = <void *> job
        self.count_inflating(job, 1)
        if self.start_job(job):
            return True
        stream.inflating = NULL
        self.count_inflating(job, -1)
        job.free_source()
        say(&error, "the server is stopping; send the request to another replica")
        self.refuse(stream, 200, STATUS_UNAVAILABLE)
        return False

    cdef void count_inflating(self, CodingJob job, int sign) noexcept:
        cdef int64_t bytes_held = sign * <int64_t> (job.size_bytes + job.limit_bytes)
        self.buffered_bytes += bytes_held
        self.stats.buffered_bytes += bytes_held

    cdef bint start_job(self, CodingJob job) noexcept:
        job.session = self
        self.stats.coding_jobs += 1
        try:
            # Whoever runs the job keeps it; `finish_coding` is the pair of this call.
            self.offload(job)
        except Exception:
            self.stats.coding_jobs -= 1
            return False
        return True

    def finish_coding(self, CodingJob job not None):
        """A job is back."""
        self.stats.coding_jobs -= 1
        if self.closed and job.stream != NULL:
            self.forget_jobs(job.stream)
        if job.inflates:
            self.finish_inflating(job)
            self.sink.kick()
        else:
            self.finish_deflating(job)
        self.want_flush()

    cdef void finish_inflating(self, CodingJob job) noexcept:
        cdef Stream *stream = job.stream
        cdef Block *inflated = job.result
        job.result = NULL
        self.count_inflating(job, -1)
        if stream != NULL:
            stream.inflating = NULL
        if stream == NULL or stream.state != STREAM_CALLED and stream.state != STREAM_TALKING:
            job.free_source()
            block_unref(inflated)
            return
        if job.outcome == INFLATE_TOO_LONG and job.limit_bytes < <uint64_t> self.limits.max_message_bytes:
            if job.encoding != ENCODING_GZIP:
                # Once more, with more room: what it inflates to is not known before.
                job.limit_bytes = min(CLAIM_STEP * job.limit_bytes, <uint64_t> self.limits.max_message_bytes)
                self.start_inflating(stream, job)
                return
            job.outcome = INFLATE_CORRUPT
        job.free_source()
        self.take_inflated(stream, job.outcome, inflated)
        if stream.state == STREAM_TALKING:
            self.go_on(stream)
        elif stream.state == STREAM_CALLED:
            self.begin_call(stream)

    cdef void go_on(self, Stream *stream) noexcept:
        pass

    cdef void forget_jobs(self, Stream *stream) noexcept:
        cdef CodingJob job
        if stream.inflating != NULL:
            job = <CodingJob> stream.inflating
            job.stream = NULL
            job.abandoned = True
            stream.inflating = NULL
        if stream.deflating != NULL:
            job = <CodingJob> stream.deflating
            job.stream = NULL
            job.abandoned = True
            stream.deflating = NULL

    # Replies.

    cdef bint queue_coded(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept:
        if stream.deflating == NULL and size_bytes < LEAST_DEFLATED_BYTES + PREFIX_BYTES:
            return self.queue_segments(stream, segments, count)
        if stream.deflating == NULL and size_bytes <= INLINE_DEFLATED_BYTES:
            return self.deflate_now(stream, segments, count, size_bytes)
        return self.deflate_later(stream, segments, count, size_bytes)

    cdef bint deflate_now(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept:
        cdef Segment coded
        cdef int i
        coded.block = deflate_segments(stream.reply_encoding, segments, count, size_bytes, True)
        if coded.block == NULL:
            return self.queue_segments(stream, segments, count)
        for i in range(count):
            block_unref(segments[i].block)
        coded.data = block_data(coded.block)
        coded.size_bytes = coded.block.size_bytes
        return self.queue_segments(stream, &coded, 1)

    cdef bint deflate_later(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept:
        cdef CodingJob job
        cdef CodingJob last
        cdef int i
        if stream.deflating == NULL and self.stats.coding_jobs >= self.limits.coding_jobs:
            return self.queue_segments(stream, segments, count)
        job = CodingJob.__new__(CodingJob)
        job.segments = <Segment *> try_malloc(count * sizeof(Segment))
        if job.segments == NULL:
            if stream.deflating == NULL:
                return self.queue_segments(stream, segments, count)
            # It may not overtake, and there is nowhere to keep it.
            for i in range(count):
                block_unref(segments[i].block)
            return False
        memcpy(job.segments, segments, count * sizeof(Segment))
        job.n_segments = count
        job.encoding = stream.reply_encoding
        job.size_bytes = size_bytes
        job.stream = stream
        self.outbound_bytes += <int64_t> size_bytes
        self.own_bytes += <int64_t> size_bytes
        self.stats.outbound_bytes += <int64_t> size_bytes
        if stream.deflating != NULL:
            last = <CodingJob> stream.deflating
            while last.following is not None:
                last = last.following
            last.following = job
            return True
        stream.deflating = <void *> job
        if self.start_job(job):
            return True
        stream.deflating = NULL
        return self.queue_job(stream, job)

    cdef void uncount_deflating(self, CodingJob job) noexcept:
        self.outbound_bytes -= <int64_t> job.size_bytes
        self.own_bytes -= <int64_t> job.size_bytes
        self.stats.outbound_bytes -= <int64_t> job.size_bytes

    cdef bint queue_job(self, Stream *stream, CodingJob job) noexcept:
        """What the job made, or what it was made for."""
        cdef Segment coded
        cdef bint queued
        self.uncount_deflating(job)
        if stream == NULL:
            block_unref(job.result)
            job.result = NULL
            job.free_source()
            return False
        if job.result != NULL:
            coded.block = job.result
            job.result = NULL
            coded.data = block_data(coded.block)
            coded.size_bytes = coded.block.size_bytes
            job.free_source()
            return self.queue_segments(stream, &coded, 1)
        queued = self.queue_segments(stream, job.segments, job.n_segments)
        # Their references are gone over.
        job.n_segments = 0
        job.free_source()
        return queued

    cdef void finish_deflating(self, CodingJob job) noexcept:
        cdef Stream *stream = job.stream
        cdef CodingJob following = job.following
        cdef bint queued
        if stream != NULL:
            stream.deflating = NULL
        queued = self.queue_job(stream, job)
        while following is not None:
            job = following
            following = job.following
            job.following = None
            if stream == NULL or stream.deflating == NULL and not queued:
                queued = self.queue_job(NULL, job) and queued
                continue
            self.uncount_deflating(job)
            queued = self.queue(stream, job.segments, job.n_segments)
            job.n_segments = 0
            job.free_source()
        if stream == NULL:
            return
        if not queued:
            set_end(stream, STATUS_RESOURCE_EXHAUSTED, "no memory for the reply", 23)
            stream.closing = 1
        if stream.deflating == NULL and stream.closing:
            stream.last = 1
        if stream.headed:
            self.resume(stream)
        elif stream.deflating == NULL:
            self.submit_head(stream)
        self.reply_moved(stream)
