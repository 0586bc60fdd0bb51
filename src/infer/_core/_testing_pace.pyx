"""The pace of a version, and whom it makes late, as a test drives them; not in wheels."""

from libc.stdint cimport int64_t
from libc.string cimport memset

from infer._core.codel cimport Codel, codel_left, codel_sheds
from infer._core.lateness cimport FATE_JOINS, FATE_LATE, FATE_STAYS, Making, fate_of, making_begin
from infer._core.pace cimport MEASURED_RUNS as C_MEASURED_RUNS
from infer._core.pace cimport STALE_NS as C_STALE_NS
from infer._core.pace cimport Pace, held_up_ns, pace_ended, pace_ran, rows_within, run_time_ns
from infer._core.request cimport Request

MEASURED_RUNS = C_MEASURED_RUNS
STALE_NS = <int64_t> C_STALE_NS
JOINS, LATE, STAYS = FATE_JOINS, FATE_LATE, FATE_STAYS


cdef class CodelBox:
    cdef Codel codel

    def __cinit__(self, target_ns: int, interval_ns: int):
        memset(&self.codel, 0, sizeof(self.codel))
        self.codel.target_ns = target_ns
        self.codel.interval_ns = interval_ns

    def came(self, rows: int) -> None:
        self.codel.came_rows += rows

    def left(self, rows: int, sojourn_ns: int, run_ns: int, now: int) -> None:
        codel_left(&self.codel, rows, sojourn_ns, run_ns, now)

    def refused(self, now: int) -> None:
        self.codel.refused_ns = now

    def sheds(self, expected_ns: int, run_ns: int) -> bool:
        return codel_sheds(&self.codel, expected_ns, run_ns)

    @property
    def shedding(self) -> bool:
        return self.codel.shedding != 0


cdef class PaceBox:
    cdef Pace pace

    def __cinit__(self, *, judges: bool = True):
        memset(&self.pace, 0, sizeof(self.pace))
        self.pace.judges = judges

    def ran(self, rows: int, run_ns: int, ended_ns: int) -> None:
        pace_ran(&self.pace, rows, run_ns, ended_ns)

    def ended(self, rows: int, ended_ns: int, side_by_side: int = 1, waiting: bool = True) -> None:
        pace_ended(&self.pace, rows, ended_ns, side_by_side, waiting)

    def run_time(self, rows: int, now: int, steep: bool = False) -> int:
        return run_time_ns(&self.pace, rows, now, steep)

    def rows_within(self, time_ns: int, most: int, now: int) -> int:
        return rows_within(&self.pace, time_ns, most, now)

    def held_up(self, wait_ns: int, now: int) -> int:
        return held_up_ns(&self.pace, wait_ns, now)

    def fates(self, requests, *, waiting_rows: int, gather_rows: int, now: int) -> list[int]:
        """Of each in turn of (rows, deadline_ns), until one stays; those that are late leave the others as they are.
        The last one is alone where all before it are gone."""
        cdef Making making
        cdef Request request
        cdef int64_t rows = 0
        cdef int fate
        fates = []
        memset(&request, 0, sizeof(request))
        making_begin(&making, &self.pace, waiting_rows, gather_rows, now)
        for index, (request.rows, request.deadline_ns) in enumerate(requests):
            fate = fate_of(&making, &request, rows, index == len(requests) - 1)
            fates.append(fate)
            if fate == FATE_STAYS:
                break
            if fate == FATE_JOINS:
                rows += request.rows
        return fates
