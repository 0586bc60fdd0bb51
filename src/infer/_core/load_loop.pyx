"""The load generator's loop: many connections, many streams, one thread, no GIL. What is said of calls holds for the
messages of long-lived streams too.

Closed loop: every connection keeps a fixed number of calls under way. Open loop: request k is *scheduled* at
start + k / rate, and its latency counts from there, whether or not a stream was free: a slow server cannot slow the
questions down (no coordinated omission). Each reply is held to :status 200, grpc-status 0 and one length.

Memory: the Loop owns its connections, sessions, buffers and two descriptors; loop_close frees them. Sockets and payload
are the caller's. Threads: one at a time.

A lost connection is not opened again: its calls count as lost, and the run goes on with the others.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strerror
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, itimerspec, timespec
from posix.unistd cimport close

from infer._core.capi.nghttp2_client cimport NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM
from infer._core.http2_client cimport *
from infer._core.load_record cimport record_call, record_close
from infer._core.load_stats cimport *

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLLIN
        EPOLLOUT
        EPOLLET
        EPOLL_CLOEXEC

    ctypedef union epoll_data_t:
        void *ptr

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_TIMER_ABSTIME
        TFD_CLOEXEC
        TFD_NONBLOCK

    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL

    ssize_t recv(int, void *, size_t, int)
    ssize_t send(int, const void *, size_t, int)

    struct iovec:
        void *iov_base
        size_t iov_len

    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen

    ssize_t sendmsg(int, const msghdr *, int)

cdef int64_t now_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <int64_t>time.tv_sec * 1000000000 + time.tv_nsec


cdef void note_reason(Loop *loop, const char *what, const char *detail, int detail_bytes) noexcept nogil:
    """Only the first is kept: later ones are mostly its consequences."""
    if loop.reason[0] == 0:
        snprintf(loop.reason, sizeof(loop.reason), b"%s: %.*s", what, detail_bytes, detail)


cdef void fail(Loop *loop, int kind, const char *what, const char *detail) noexcept nogil:
    loop.stats.failures[kind] += 1
    note_reason(loop, what, detail, 200)


cdef void count_ok(Loop *loop, ClientCall *call) noexcept nogil:
    cdef LoadStats *stats = &loop.stats
    cdef int64_t latency_ns = loop.received_ns - call.scheduled_ns
    stats.ok += 1
    if loop.record.on:
        if call.out_of_memory:
            loop.record.out_of_memory = True
        else:
            record_call(&loop.record, call.scheduled_ns, call.started_ns, loop.received_ns,
                        call.reply + MESSAGE_PREFIX_BYTES, call.body_bytes - MESSAGE_PREFIX_BYTES)
    if call.keep_reply and loop.first_reply == NULL:
        # Taken: the session does not free what is NULL.
        loop.first_reply = call.reply
        loop.first_reply_bytes = call.body_bytes
        call.reply = NULL
    if call.scheduled_ns < loop.warm_ns:
        return
    add_latency(stats, latency_ns)
    stats.last_reply_ns = loop.received_ns


cdef void count_end(Loop *loop, ClientCall *call) noexcept nogil:
    """How a stream of messages ended; the messages that it took with it are counted one by one."""
    if call.messages.surplus > 0:
        fail(loop, FAIL_STREAM_END, b"a stream", b"has more replies than messages")
    elif call.unanswered:
        return
    elif call.abandoned:
        if loop.ending:
            fail(loop, FAIL_STREAM_END, b"a stream", b"was not ended by the server")
    elif call.grpc_status > 0:
        loop.stats.failures[FAIL_STREAM_END] += 1
        note_reason(loop, b"a stream ended", call.detail, <int>call.detail_bytes)
    elif call.grpc_status != 0:
        fail(loop, FAIL_STREAM_END, b"a stream ended without a status", reset_text(call.reset_code))


cdef void count_reply(Loop *loop, ClientCall *call) noexcept nogil:
    cdef int64_t size = reply_message_bytes(call)
    if call.error_message:
        loop.stats.failures[FAIL_ERROR_MESSAGE] += 1
        note_reason(loop, b"error message", call.detail, <int>call.detail_bytes)
        return
    if call.grpc_status >= 0 and call.grpc_status < GRPC_CODES:
        loop.stats.codes[call.grpc_status] += 1
    elif call.grpc_status != NO_GRPC_STATUS:
        loop.stats.other_code += 1
    if call.grpc_status > 0 and call.http_status == 200:
        note_reason(loop, b"call failed", call.detail, <int>call.detail_bytes)
    elif call.abandoned:
        fail(loop, FAIL_UNANSWERED if loop.given_up else FAIL_CONNECTION_LOST, b"call ended", b"without a reply")
    elif call.reset_code == NGHTTP2_REFUSED_STREAM:
        fail(loop, FAIL_STREAM_REFUSED, b"stream refused", reset_text(call.reset_code))
    elif call.http_status != 200 and call.reset_code == NGHTTP2_NO_ERROR:
        fail(loop, FAIL_HTTP_STATUS, b"HTTP status is not 200", b"")
    elif call.grpc_status == NO_GRPC_STATUS and call.reset_code != NGHTTP2_NO_ERROR:
        fail(loop, FAIL_STREAM_RESET, b"stream reset", reset_text(call.reset_code))
    elif call.grpc_status != 0:
        fail(loop, FAIL_NO_GRPC_STATUS, b"no grpc-status", b"the stream ended without trailers")
    elif call.unanswered:
        fail(loop, FAIL_UNANSWERED, b"message without a reply", b"its stream ended in order")
    else:
        if loop.expected_bytes < 0:
            loop.expected_bytes = size
        if size < 0 or (size != loop.expected_bytes and not loop.any_length):
            fail(loop, FAIL_WRONG_LENGTH, b"wrong length", b"a reply differs in length from what was expected")
        else:
            count_ok(loop, call)


cdef inline uint64_t next_request(Loop *loop) noexcept nogil:
    return loop.stats.sent + loop.stats.failures[FAIL_NOT_STARTED]


cdef bint may_schedule(Loop *loop, int64_t at_ns) noexcept nogil:
    return ((loop.max_requests == 0 or next_request(loop) < loop.max_requests)
            and (loop.stop_ns == 0 or at_ns < loop.stop_ns))


cdef void mark_dirty(Connection *connection) noexcept nogil:
    if not connection.dirty:
        connection.dirty = True
        connection.next_dirty = connection.loop.dirty
        connection.loop.dirty = connection


cdef bint start_call(Connection *connection, int64_t scheduled_ns) noexcept nogil:
    cdef Loop *loop = connection.loop
    cdef ClientCall *call = session_start(&connection.session, loop.framed, loop.framed_bytes, scheduled_ns,
                                          loop.capture or loop.record.on)
    if call == NULL:
        return False
    if loop.record.on:
        call.started_ns = now_ns()
    loop.capture = False
    if loop.stats.in_flight == 0:
        loop.alive_ns = max(loop.alive_ns, scheduled_ns)
    loop.stats.sent += 1
    loop.stats.in_flight += 1
    loop.stats.peak_in_flight = max(loop.stats.peak_in_flight, loop.stats.in_flight)
    mark_dirty(connection)
    return True


cdef void fill_connection(Connection *connection) noexcept nogil:
    """Closed loop: start calls until the connection has its share under way."""
    cdef int64_t now
    while connection.open and session_can_start(&connection.session):
        now = now_ns()
        if not may_schedule(connection.loop, now) or not start_call(connection, now):
            break


cdef void on_reply(void *owner, ClientCall *call) noexcept nogil:
    cdef Connection *connection = <Connection *>owner
    cdef Loop *loop = connection.loop
    cdef bint captured = call.keep_reply
    cdef uint64_t ok = loop.stats.ok
    if call.ended:
        count_end(loop, call)
        return
    loop.stats.in_flight -= 1
    count_reply(loop, call)
    if loop.record.on and loop.stats.ok == ok:
        record_call(&loop.record, call.scheduled_ns, call.started_ns, now_ns(), NULL, 0)
    if captured and loop.first_reply == NULL:
        loop.capture = True
    if loop.interval_ps == 0:
        fill_connection(connection)


cdef void lose_connection(Connection *connection, const char *what, const char *detail) noexcept nogil:
    cdef Loop *loop = connection.loop
    if not connection.open:
        return
    connection.open = False
    loop.n_open -= 1
    epoll_ctl(loop.epoll_fd, EPOLL_CTL_DEL, connection.fd, NULL)
    if connection.session.active > 0:
        note_reason(loop, what, detail, 200)
    session_abandon(&connection.session)


cdef void arm_room(Connection *connection, bint wanted) noexcept nogil:
    cdef epoll_event event
    if connection.waits_for_room == wanted:
        return
    connection.waits_for_room = wanted
    event.events = EPOLLIN | EPOLLOUT if wanted else EPOLLIN
    event.data.ptr = connection
    epoll_ctl(connection.loop.epoll_fd, EPOLL_CTL_MOD, connection.fd, &event)


cdef bint keep_pending(Connection *connection, const Output *output) noexcept nogil:
    cdef Output *pending = &connection.pending
    if output == pending:
        return True
    if pending.data == NULL:
        pending.data = <uint8_t *>malloc(IO_BYTES)
        if pending.data == NULL:
            lose_connection(connection, b"out of memory", b"for a write that the socket did not take")
            return False
    memcpy(pending.data, output.data + output.start, output.end - output.start)
    pending.start = 0
    pending.lent_at = output.lent_at - output.start
    pending.end = output.end - output.start
    pending.lent = output.lent
    pending.lent_bytes = output.lent_bytes
    return True


cdef ssize_t send_output(int fd, const Output *output) noexcept nogil:
    cdef iovec[3] parts
    cdef msghdr message
    parts[0].iov_base = output.data + output.start
    parts[0].iov_len = output.lent_at - output.start
    parts[1].iov_base = <void *>output.lent
    parts[1].iov_len = output.lent_bytes
    parts[2].iov_base = output.data + output.lent_at
    parts[2].iov_len = output.end - output.lent_at
    if output.lent_bytes == 0:
        return send(fd, output.data + output.start, output.end - output.start, MSG_NOSIGNAL)
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    message.msg_iovlen = 3
    return sendmsg(fd, &message, MSG_NOSIGNAL)


cdef void drop_sent(Output *output, size_t taken) noexcept nogil:
    cdef size_t part = min(taken, output.lent_at - output.start)
    output.start += part
    taken -= part
    part = min(taken, output.lent_bytes)
    output.lent += part
    output.lent_bytes -= part
    output.start += taken - part
    if output.lent_bytes == 0:
        output.lent_at = output.end


cdef void flush_connection(Connection *connection) noexcept nogil:
    """Send until the session has nothing more or the socket is full."""
    cdef Loop *loop = connection.loop
    cdef Output *output
    cdef ssize_t taken
    while connection.open:
        output = &connection.pending
        if output_bytes(output) == 0:
            output = &loop.out
            session_send(&connection.session, output, IO_BYTES)
            if output_bytes(output) == 0:
                break
        taken = send_output(connection.fd, output)
        if taken < 0 and errno != EAGAIN and errno != EINTR:
            lose_connection(connection, b"send failed", strerror(errno))
            return
        drop_sent(output, <size_t>max(taken, <ssize_t>0))
        if output_bytes(output) > 0:
            if keep_pending(connection, output):
                arm_room(connection, True)
            return
    if connection.open:
        arm_room(connection, False)
        if session_is_finished(&connection.session):
            end_session(connection)


cdef void end_session(Connection *connection) noexcept nogil:
    """The session can do nothing more: a broken peer, or a GOAWAY whose streams have ended."""
    cdef ClientSession *session = &connection.session
    lose_connection(connection, b"GOAWAY" if session.goaway else b"HTTP/2", session_reason(session))


cdef void read_connection(Connection *connection) noexcept nogil:
    cdef Loop *loop = connection.loop
    cdef ssize_t size = recv(connection.fd, loop.in_buffer, IO_BYTES, 0)
    if size < 0:
        if errno != EAGAIN and errno != EINTR:
            lose_connection(connection, b"receive failed", strerror(errno))
        return
    if size == 0:
        lose_connection(connection, b"connection lost", b"closed by the server")
        return
    loop.received_ns = now_ns()
    if session_feed(&connection.session, loop.in_buffer, <size_t>size) != 0:
        # What nghttp2 wants to say to a peer that broke the protocol is lost with the connection.
        end_session(connection)
        return
    loop.alive_ns = loop.received_ns
    if connection.session.goaway:
        note_reason(loop, b"GOAWAY", session_reason(&connection.session), 200)
        session_end_streams(&connection.session)
    if loop.interval_ps == 0:
        # SETTINGS may just have allowed more streams.
        fill_connection(connection)
    mark_dirty(connection)


cdef inline int64_t due_at(Loop *loop, uint64_t k) noexcept nogil:
    """When request k is due."""
    return loop.start_ns + <int64_t>(k * <uint64_t>loop.interval_ps // 1000)


cdef Connection *find_free_connection(Loop *loop) noexcept nogil:
    """Round robin; NULL when every stream is taken."""
    cdef uint32_t i, index
    cdef Connection *connection
    for i in range(loop.n_connections):
        index = (loop.cursor + i) % loop.n_connections
        connection = &loop.connections[index]
        if connection.open and session_can_start(&connection.session):
            loop.cursor = (index + 1) % loop.n_connections
            return connection
    return NULL


cdef int64_t start_due(Loop *loop) noexcept nogil:
    """Open loop: start what is due. Returns when the next request is due: 0 = waits for a stream, -1 = none is left."""
    cdef int64_t due_ns
    cdef int64_t now = now_ns()
    cdef Connection *connection
    while True:
        due_ns = due_at(loop, next_request(loop))
        if not may_schedule(loop, due_ns):
            return -1
        if due_ns > now:
            return due_ns
        if loop.patience_ns != 0 and now - due_ns >= loop.patience_ns:
            fail(loop, FAIL_NOT_STARTED, b"not started", b"no stream was free in time")
            continue
        connection = find_free_connection(loop)
        if connection == NULL or not start_call(connection, due_ns):
            return 0


cdef void flush_dirty(Loop *loop) noexcept nogil:
    cdef Connection *connection
    while loop.dirty != NULL:
        connection = loop.dirty
        loop.dirty = connection.next_dirty
        connection.dirty = False
        flush_connection(connection)


cdef void give_up(Loop *loop, int64_t now) noexcept nogil:
    """End the calls under way as unanswered, and count what was due and never started."""
    cdef uint32_t i
    loop.given_up = True
    for i in range(loop.n_connections):
        lose_connection(&loop.connections[i], b"given up", b"replies were still due")
    if loop.interval_ps != 0:
        while may_schedule(loop, due_at(loop, next_request(loop))) and due_at(loop, next_request(loop)) <= now:
            fail(loop, FAIL_NOT_STARTED, b"not started", b"no connection is left")


cdef bint await_streams(Loop *loop) noexcept nogil:
    """Every message is answered: ends the streams. True once the server has ended them too."""
    cdef uint32_t i
    cdef bint awaited = False
    for i in range(loop.n_connections):
        if loop.connections[i].open and loop.connections[i].session.active > 0:
            awaited = True
            if not loop.ending:
                session_end_streams(&loop.connections[i].session)
                flush_connection(&loop.connections[i])
    loop.ending = True
    return not awaited


cdef bint ensure_ended(Loop *loop, int64_t now, int64_t due_ns) noexcept nogil:
    """True when the run is over, by its own end or because there is no point in waiting."""
    cdef LoadStats *stats = &loop.stats
    cdef bint more = may_schedule(loop, now) if loop.interval_ps == 0 else due_ns >= 0
    if stats.in_flight == 0 and not more and await_streams(loop):
        return True
    if (loop.n_open == 0
            or (loop.stop_ns != 0 and now - loop.stop_ns > loop.stall_ns)
            or ((stats.in_flight > 0 or loop.interval_ps == 0 or loop.ending)
                and now - loop.alive_ns > loop.stall_ns)):
        give_up(loop, now)
        return True
    return False


cdef void arm_timer(Loop *loop, int64_t due_ns) noexcept nogil:
    cdef itimerspec spec
    if due_ns <= 0 or due_ns == loop.armed_ns:
        return
    memset(&spec, 0, sizeof(spec))
    spec.it_value.tv_sec = due_ns // 1000000000
    spec.it_value.tv_nsec = due_ns % 1000000000
    timerfd_settime(loop.timer_fd, TFD_TIMER_ABSTIME, &spec, NULL)
    loop.armed_ns = due_ns


cdef bint loop_drive(Loop *loop, int64_t until_ns) noexcept nogil:
    """Run until the given time; True when the run is over."""
    cdef epoll_event[MAX_EVENTS] events
    cdef Connection *connection
    cdef int64_t now, due_ns = -1
    cdef int i, count
    while True:
        if loop.interval_ps != 0:
            due_ns = start_due(loop)
        flush_dirty(loop)
        now = now_ns()
        if ensure_ended(loop, now, due_ns):
            return True
        if now >= until_ns:
            return False
        arm_timer(loop, due_ns)
        count = epoll_wait(loop.epoll_fd, events, MAX_EVENTS, <int>((until_ns - now) // 1000000 + 1))
        for i in range(count):
            connection = <Connection *>events[i].data.ptr
            # NULL is the timer, which only has to wake us.
            if connection == NULL or not connection.open:
                continue
            if events[i].events & EPOLLOUT:
                mark_dirty(connection)
            if events[i].events & ~<uint32_t>EPOLLOUT:
                read_connection(connection)


cdef bint watch(Loop *loop, int fd, Connection *connection, uint32_t wanted) noexcept nogil:
    cdef epoll_event event
    event.events = wanted
    event.data.ptr = connection
    return epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0


cdef bint loop_open(Loop *loop, uint32_t max_connections) noexcept nogil:
    loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    loop.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
    loop.in_buffer = <uint8_t *>malloc(IO_BYTES)
    loop.out.data = <uint8_t *>malloc(IO_BYTES)
    loop.connections = <Connection *>calloc(max_connections, sizeof(Connection))
    # Edge-triggered: an expiry that nobody reads must not keep epoll awake.
    return (loop.epoll_fd >= 0 and loop.timer_fd >= 0 and loop.in_buffer != NULL and loop.out.data != NULL
            and loop.connections != NULL and watch(loop, loop.timer_fd, NULL, EPOLLIN | EPOLLET))


cdef bint loop_add(
        Loop *loop, int fd, const char *path, size_t path_bytes, const char *authority, size_t authority_bytes,
        int64_t timeout_ns, uint32_t streams, uint32_t stream_messages) noexcept nogil:
    cdef Connection *connection = &loop.connections[loop.n_connections]
    if session_open(&connection.session, path, path_bytes, authority, authority_bytes, timeout_ns, streams,
                    stream_messages, on_reply, connection) != 0:
        return False
    connection.fd = fd
    connection.loop = loop
    if loop.varied > 0:
        # Far enough apart for no two connections to meet.
        connection.session.varied = loop.varied + (<uint64_t> loop.n_connections << 32)
    connection.open = True
    loop.n_connections += 1
    loop.n_open += 1
    mark_dirty(connection)
    return watch(loop, fd, connection, EPOLLIN)


cdef void loop_begin(Loop *loop) noexcept nogil:
    cdef uint32_t i
    if loop.interval_ps == 0:
        for i in range(loop.n_connections):
            fill_connection(&loop.connections[i])


cdef void loop_close(Loop *loop) noexcept nogil:
    cdef uint32_t i
    for i in range(loop.n_connections):
        session_close(&loop.connections[i].session)
        free(loop.connections[i].pending.data)
    free(loop.connections)
    free(loop.in_buffer)
    free(loop.out.data)
    free(loop.first_reply)
    record_close(&loop.record)
    if loop.epoll_fd >= 0:
        close(loop.epoll_fd)
    if loop.timer_fd >= 0:
        close(loop.timer_fd)
    loop_clear(loop)


cdef void loop_clear(Loop *loop) noexcept nogil:
    memset(loop, 0, sizeof(Loop))
    loop.epoll_fd = -1
    loop.timer_fd = -1
