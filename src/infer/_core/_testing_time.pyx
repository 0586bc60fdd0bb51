"""The clock as nogil code sees it, and the timer wheel, as a test drives them; not in wheels.

A Wheel owns its nodes. Each node is an allocation of its own, freed in mid-callback where the test asks for it.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from infer._core.clock cimport now_ns
from infer._core.timer_wheel cimport (
    WHEEL_TICK_NS, TimerNode, TimerWheel, wheel_add, wheel_expire, wheel_init, wheel_next_ns, wheel_remove)

TICK_NS = WHEEL_TICK_NS


def nogil_now() -> int:
    """The time that code without the GIL sees."""
    cdef int64_t time
    with nogil:
        time = now_ns()
    return time


cdef struct NumberedNode:
    TimerNode node
    int64_t number


cdef class Wheel:
    """A timer wheel whose nodes are told apart by number."""
    cdef TimerWheel wheel
    cdef dict addresses
    cdef list expired
    cdef object hook
    cdef object error

    def __cinit__(self, time_ns: int):
        self.addresses = {}
        wheel_init(&self.wheel, time_ns)

    def __dealloc__(self):
        for address in self.addresses.values():
            free(<void *> <size_t> address)

    def __len__(self) -> int:
        return self.wheel.nodes

    cdef NumberedNode *node_of(self, number: int) except NULL:
        cdef NumberedNode *node
        if number not in self.addresses:
            node = <NumberedNode *> calloc(1, sizeof(NumberedNode))
            if node == NULL:
                raise MemoryError
            node.number = number
            self.addresses[number] = <size_t> node
        return <NumberedNode *> <size_t> self.addresses[number]

    def add(self, number: int, deadline_ns: int) -> None:
        wheel_add(&self.wheel, &self.node_of(number).node, deadline_ns)

    def remove(self, number: int) -> None:
        wheel_remove(&self.wheel, &self.node_of(number).node)

    def free(self, number: int) -> None:
        """Free the node of `number`, which must not be in the wheel."""
        if self.node_of(number).node.next != NULL:
            raise ValueError("still in the wheel")
        free(<void *> <size_t> self.addresses.pop(number))

    def expire(self, time_ns: int, hook=None) -> list[int]:
        """Numbers in the order in which they expired; `hook(number)` is called in each callback."""
        cdef int64_t count
        self.expired = expired = []
        self.hook = hook
        self.error = None
        count = wheel_expire(&self.wheel, time_ns, on_expiry, <void *> self)
        self.hook = None
        if self.error is not None:
            raise self.error
        if count != len(expired):
            raise AssertionError(f"{count} reported, {len(expired)} handed over")
        return expired

    def next_ns(self) -> int:
        return wheel_next_ns(&self.wheel)


cdef void on_expiry(TimerNode *node, void *context) noexcept:
    cdef Wheel self = <Wheel> context
    cdef int64_t number = (<NumberedNode *> node).number
    try:
        self.expired.append(number)
        if self.hook is not None:
            self.hook(number)
    except BaseException as error:
        self.error = error
