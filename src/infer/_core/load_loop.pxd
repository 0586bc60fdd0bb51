# The load generator's loop. See load_loop.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from infer._core.http2_client cimport ClientSession, Output
from infer._core.load_record cimport Record
from infer._core.load_stats cimport LoadStats

cdef enum:
    IO_BYTES = 262144           # read and write buffers, shared by all connections
    MAX_EVENTS = 256

cdef struct Connection:
    int fd
    bint open
    bint dirty                  # in the list of connections with something to send
    bint waits_for_room         # EPOLLOUT is armed
    Connection *next_dirty
    Loop *loop
    Output pending              # what the socket did not take; its data is owned
    ClientSession session

cdef struct Loop:
    Connection *connections     # array of n_connections, owned
    uint32_t n_connections
    uint32_t n_open
    uint32_t cursor             # open loop: where the search for a free stream begins
    Connection *dirty
    int epoll_fd
    int timer_fd
    uint8_t *in_buffer
    Output out                  # its data is owned
    const uint8_t *framed       # lent by run()
    size_t framed_bytes
    uint64_t max_requests       # 0 = no bound
    int64_t patience_ns         # how long a call may wait for a stream; 0 = as long as it takes
    int64_t interval_ps         # open loop: picoseconds between requests; 0 = closed loop
    int64_t start_ns
    int64_t warm_ns             # end of the warm-up
    int64_t stop_ns             # no request is scheduled from here on; 0 = no bound
    int64_t stall_ns            # without a byte for so long the run is given up
    int64_t received_ns         # when the bytes now being read came
    int64_t alive_ns            # last sign of life while calls were under way
    bint given_up
    bint ending                 # streams of messages were told that no message follows
    int64_t armed_ns            # of the timer
    int64_t expected_bytes      # -1 until learned
    bint any_length             # replies may be of any
    uint64_t varied             # as of each session, apart from each other; 0: every message is the same
    bint capture                # the next request started keeps its reply
    uint8_t *first_reply        # owned; body of the first OK reply
    size_t first_reply_bytes
    char[256] reason            # of the first failure, for people
    Record record               # of unary calls, where it is on
    LoadStats stats

cdef int64_t now_ns() noexcept nogil
# Makes loop_close safe.
cdef void loop_clear(Loop *loop) noexcept nogil
# False when memory or descriptors are out; loop_close is due all the same.
cdef bint loop_open(Loop *loop, uint32_t max_connections) noexcept nogil
# `fd` is connected and non-blocking; the caller closes it after the last loop_drive. Texts are lent until loop_close.
cdef bint loop_add(
    Loop *loop, int fd, const char *path, size_t path_bytes, const char *authority, size_t authority_bytes,
    int64_t timeout_ns, uint32_t streams, uint32_t stream_messages) noexcept nogil
# Once, when the settings and times of the Loop are set.
cdef void loop_begin(Loop *loop) noexcept nogil
# Run until the given time; True when the run is over.
cdef bint loop_drive(Loop *loop, int64_t until_ns) noexcept nogil
cdef void loop_close(Loop *loop) noexcept nogil
