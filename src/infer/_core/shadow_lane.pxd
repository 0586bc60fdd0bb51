"""Where copies of requests are run and compared: a thread that gets only the time nobody else wants.

The loop gives it a Group of copies of one shadow; they are the lane's until it has published the group, and the loop's
at all other times. No mutex is between the two: a lane that loses its core keeps nobody waiting.
"""

from libc.stdint cimport int32_t, uint64_t

from infer._core.batch cimport Batch, Scratch
from infer._core.capi.pthread cimport pthread_t
from infer._core.difference cimport OutputStats, Tolerance
from infer._core.model_version cimport Version
from infer._core.reply_reader cimport ReplyOutputs
from infer._core.request cimport Request, Segment
from infer._core.ring cimport Waker
from infer._core.tensor cimport ErrorText, InferMessage

cdef enum:
    GROUP_COPIES = 64            # how many the lane has at once: what an unload may have to wait for

cdef enum LaneState:
    LANE_FREE = 0                # the loop's
    LANE_GIVEN = 1               # the lane's
    LANE_ENDED = 2               # published

cdef enum CopyOutcome:
    COPY_LEFT = 0                # not run: its shadow has ended
    COPY_AGREES = 1
    COPY_DIFFERS = 2
    COPY_FAILED = 3              # the shadow gave no answer

# A request and what it was answered; in the arena, its segments behind it.
cdef struct Copy:
    Copy *next
    Request *request             # of the shadow: body, views; nobody waits for it
    Segment *segments            # the primary's reply, prefix included; one reference each
    uint64_t allocated_bytes
    uint64_t held_bytes          # of the Blocks that it keeps
    int32_t n_segments
    int32_t outcome
    int32_t item                 # in `batch`
    Batch *batch                 # that it was run in; NULL: in none
    double badness               # of its worst output

cdef struct Group:
    Version *version             # the shadow's
    Tolerance tolerance
    OutputStats *outputs         # the shadow's, by output; the lane writes them
    const int32_t *ended         # 1: the shadow has ended, what is left is not run
    Copy *copies[64]
    Batch *batches[64]           # for the loop to free
    int32_t n_copies
    int32_t n_batches
    ErrorText failure            # of the first copy that failed; empty: none

cdef struct Lane:
    Group group
    int32_t state                # atomic: LaneState
    int32_t stopping             # atomic, as the next
    int32_t finished             # its thread does nothing more
    int work_fd                  # an eventfd: a group was given
    Waker *waker                 # the loop's
    pthread_t thread
    int32_t started
    Scratch scratch
    InferMessage message
    ReplyOutputs reply
    ErrorText error

cdef int lane_open(Lane *lane, Waker *waker) noexcept nogil        # 0, or -1: no memory or no eventfd
cdef void lane_close(Lane *lane) noexcept nogil                    # after lane_stop
cdef int lane_start(Lane *lane) noexcept nogil                     # 0, or why there is no thread
# Once the group that it has is published, whose shadow has ended: its run is told to end. Waits without the GIL.
cdef void lane_stop(Lane *lane) noexcept nogil
# `group` is filled: runs it, by and by.
cdef void lane_give(Lane *lane) noexcept nogil
# Tells the run under way to end, unless it is just beginning or ending.
cdef void lane_interrupt(Lane *lane) noexcept nogil
# What its thread does with a group: runs, compares, publishes.
cdef void lane_step(Lane *lane) noexcept nogil
