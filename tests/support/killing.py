"""Servers of one repository and one state directory, killed one after the other, and what has to hold after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from infer.cli.audit import command as audit
from infer.client import InferError
from tests.support.command import SECONDS, Serving
from tests.support.repositories import Caller

KILL_POINT = Path(__file__).parent / "kill_point.py"
KILLED = -9
QUICK = ("--repository-poll-interval", "0.05", "--repository-settle-time", "0.05")
# What a call that was under way says of a server that is gone.
GONE = ("UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL")


class Killed:
    """`arguments` are those of each `infer serve`, beside the repository and the state directory in `folder`."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder, self.arguments = folder, arguments
        self.root, self.state = folder / "models", folder / "state"
        self.armed = folder / "armed"
        self.log = folder / "log"
        self.log.touch()

    @contextmanager
    def serving(self, *points: str, nth: int = 1) -> Iterator[tuple[Serving, Caller]]:
        """A server and a client, until the server is killed: at the NTH call of any of the points since `arm`, or by
        the test. The log of all of them is one."""
        self.armed.unlink(missing_ok=True)
        program = ("-P", KILL_POINT, self.armed, nth, *points, "--") if points else ("-m", "infer")
        with Serving(self.root, "--state-dir", self.state, *QUICK, *self.arguments, cwd=self.folder,
                     env={"TMPDIR": str(self.folder)}, program=program) as serving:
            caller = Caller(serving.address)
            try:
                yield serving, caller
            finally:
                caller.client.close()
                serving.process.kill()
                serving.wait()
                with self.log.open("a") as log:
                    log.writelines(line + "\n" for line in serving.stderr)

    def arm(self) -> None:
        self.armed.touch()

    def dies(self, serving: Serving, change: Callable[[], None]) -> bool:
        """Makes the change, which the server does not outlive; whether it was answered with OK before."""
        self.arm()
        answered = answered_ok(change)
        assert serving.wait() == KILLED, serving.output
        assert any(line.startswith("killed at ") for line in serving.stderr), serving.output
        return answered

    def through(self, points: Iterable[str], prepare: Callable[[Caller], None],
                change: Callable[[Caller, Serving], None], check: Callable[[Caller, bool], None]) -> None:
        """Ends a server at each of the points while it makes the change for which `prepare` has made it ready. `check`
        gets the next one, and whether the change was answered with OK."""
        answered: bool | None = None
        for point in (*points, ""):
            with self.serving(*filter(None, (point,))) as (serving, caller):
                if answered is not None:
                    check(caller, answered)
                if point:
                    prepare(caller)
                    answered = self.dies(serving, lambda: change(caller, serving))
            self.verify()

    def verify(self) -> list[tuple[str, str, str, str]]:
        """The audit log, which agrees with itself and with every log so far: event, model, version, outcome."""
        runner = CliRunner()
        verified = runner.invoke(audit, ["--state-dir", str(self.state), "--log", str(self.log)])
        assert verified.exit_code == 0, verified.output
        printed = runner.invoke(audit, ["--state-dir", str(self.state)])
        rows = [line.split() for line in printed.output.splitlines()[1:]]
        return [(row[2], row[3], row[4], row[5]) for row in rows]


def answered_ok(change: Callable[[], None]) -> bool:
    """Whether the call was answered with OK; else its server is gone."""
    try:
        change()
    except InferError as error:
        if error.status not in GONE:
            raise
        return False
    return True


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Asks the server until it is so."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()


def ready_versions(caller: Caller, model: str = "m") -> set[int]:
    return {int(version) for (name, version), state in caller.index().items() if name == model and state == "READY"}


def assert_serves(caller: Caller, versions: Collection[int], labels: Mapping[str, int], model: str = "m") -> None:
    """The very versions, each with the answers of its own files, and the labels."""
    until(lambda: ready_versions(caller, model) == set(versions), caller.index)
    for version in versions:
        assert caller.answer(model, str(version)) == (str(version), float(version))
    for label, version in labels.items():
        assert caller.answer(model, label) == (str(version), float(version)), label
    if "stable" in labels:
        assert caller.answer(model) == (str(labels["stable"]), float(labels["stable"]))
