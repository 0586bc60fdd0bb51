"""Broken repositories: `infer check` finds each in one pass, a server refuses what is broken and serves the rest."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from infer._core import debug
from infer.models.check import Checked, check
from infer.models.problems import Problem
from infer.models.written import read_written
from tests.bad_input.repositories import LISTS, ROOTS, ROWS, TABLES, Row, WrittenRow
from tests.support import models
from tests.support.engine import runtime
from tests.support.models import write_version
from tests.support.requests import add_raw, infer_request
from tests.support.server import InProcess, in_process

EVERY = [*ROWS, *ROOTS]


def broken(row: Row) -> str:
    """What the row's model `m` is called where all rows are served together."""
    return f"m-{row.name}"


def build(row: Row, home: Path) -> Path:
    """The row's repository in a directory of its own, a healthy model beside the broken one."""
    root = home / row.name / "r"
    root.mkdir(parents=True)
    row.build(root)
    if row not in ROOTS:
        write_version(root, f"good-{row.name}", 1, models.dense())
        if (root / "m").is_symlink() or (root / "m").is_dir():
            (root / "m").rename(root / broken(row))
    return root


def place_of(row: Row, root: Path) -> str:
    first, _, rest = row.place.partition("/")
    return str(root / (broken(row) if first == "m" else first) / rest)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    home = tmp_path_factory.mktemp("rows")
    return {row.name: build(row, home) for row in EVERY}


def checked(*paths: Path) -> Checked:
    return check(paths, runtime())


def test_there_are_enough_rows() -> None:
    assert len(EVERY) >= 60
    assert len({row.name for row in EVERY}) == len(EVERY)


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.name)
def test_check_finds_it(roots: Mapping[str, Path], row: Row) -> None:
    root = roots[row.name]
    found = checked(root)
    assert_found(row, root, found.problems)
    assert not [problem for problem in found.problems if f"good-{row.name}" in problem.place]


def assert_found(row: Row, root: Path, problems: tuple[Problem, ...]) -> None:
    place = place_of(row, root)
    fitting = [problem for problem in problems if problem.code == row.code and problem.place.startswith(place)]
    assert fitting, "\n".join(map(str, problems))
    text = str(fitting[0])
    for part in row.said:
        assert part in text, text
    assert_complete(fitting[0])
    assert fitting[0].is_error != row.served or row.code.startswith("E"), text


def assert_complete(problem: Problem) -> None:
    """It says what is wrong and what to do."""
    assert problem.cause or (problem.expected and problem.got), str(problem)
    assert problem.fix, str(problem)


def test_one_pass_finds_all_of_them(roots: Mapping[str, Path]) -> None:
    found = checked(*roots.values())
    for row in EVERY:
        assert_found(row, roots[row.name], found.problems)


@pytest.mark.parametrize("row", [*LISTS, *TABLES], ids=lambda row: row.name)
def test_check_finds_what_is_wrong_with_files_of_models(tmp_path: Path, row: WrittenRow) -> None:
    write_version(tmp_path, "m", 1, models.dense())
    write_version(tmp_path, "good", 1, models.dense())
    file = tmp_path.parent / f"{tmp_path.name}.{'config' if row in LISTS else 'toml'}"
    file.write_text(row.text.replace('base_path: "m"', f'base_path: "{tmp_path.name}/m"'))
    written = read_written(file, None) if row in LISTS else read_written(None, file)
    found = check([tmp_path], runtime(), written=written)
    assert (found.models, found.versions) == (2, 2)
    (problem,) = [each for each in found.problems if each.code == row.code]
    for part in row.said:
        assert part in str(problem)
    assert row.line == 0 or problem.place.startswith(f"{file}:{row.line}"), str(problem)
    assert_complete(problem)


class Lines(logging.Handler):
    """Warnings and errors of the server's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Served(NamedTuple):
    server: InProcess
    roots: Mapping[str, Path]
    said: list[str]


@pytest.fixture(autouse=True)
def nothing_left_alive(request: pytest.FixtureRequest) -> Iterator[None]:
    """As everywhere, but for Blocks where the server runs: it tries broken models again, and a load holds some then.
    That none is left is asserted at the server's end."""
    counted = {"request", "stream", "session", "batch"} | ({"block"} if "served" not in request.fixturenames else set())

    def live() -> dict[str, int]:
        return {name: count for name, count in debug.live().items() if name in counted} if debug.ENABLED else {}

    before = live()
    yield
    if live() != before:
        gc.collect()
    assert live() == before


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All rows at once, each in a root of its own, in one server."""
    home = tmp_path_factory.mktemp("served")
    roots = {row.name: build(row, home) for row in EVERY}
    lines = Lines()
    logging.getLogger("infer").addHandler(lines)
    try:
        with in_process(home, paths=tuple(roots.values()), executors=1) as server:
            yield Served(server, roots, lines.said)
    finally:
        logging.getLogger("infer").removeHandler(lines)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_server_refuses_it_and_serves_the_healthy_one(served: Served, row: Row) -> None:
    server = served.server
    with grpc.insecure_channel(server.address) as channel:
        assert infer(channel, f"good-{row.name}") == grpc.StatusCode.OK
        code = infer(channel, broken(row))
    server.settle()
    if row.served:
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    else:
        assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.name)
def test_the_server_says_what_is_wrong_as_check_does(served: Served, row: Row) -> None:
    place, model = place_of(row, served.roots[row.name]), f"model {broken(row)!r}"
    lines = [line for line in served.said if place in line or model in line]
    assert any(all(part in line for part in row.said) for line in lines), "\n".join(lines)


def infer(channel: grpc.Channel, model: str) -> grpc.StatusCode:
    """The status of a call with a row of four; a model that wants something else says INVALID_ARGUMENT."""
    request = infer_request(model)
    add_raw(request, "x", "FP32", [1, 4], bytes(16))
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                               request_serializer=lambda message: message.SerializeToString(),
                               response_deserializer=bytes)
    try:
        call(request, timeout=30)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
