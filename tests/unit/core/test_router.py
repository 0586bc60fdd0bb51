"""RouteTable: names, versions, reasons, and names whose hashes collide."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.model_version import VersionEntry
from infer._core.router import RouteTable
from infer.errors import InferError

INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, UNAVAILABLE = 3, 5, 9, 14
NAME_CHARACTERS = string.ascii_letters + string.digits + "_.-"
# Pairs of names with one 64-bit FNV-1a hash.
COLLIDING = [("8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"), ("gMPflVXtwGDXbIhP73TX", "LtHf1prlU1bCeYZEdqWf"),
             ("pFuM83THhM-Qw8FI5FKo", ".jPx7rOtTDteKAwvfOEo")]


def version(name: str, number: str = "1") -> VersionEntry:
    return VersionEntry(name, number, None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                        queue_limit_rows=1, max_running=1, properties={})


def refusal(table: RouteTable, name: str, number: str = "") -> tuple[int, str]:
    with pytest.raises(InferError) as caught:
        table.lookup(name, number)
    return caught.value.code, caught.value.message


def fnv1a(data: bytes) -> int:
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return value


def test_no_version_means_the_highest_by_number() -> None:
    versions = [version("m", number) for number in ("9", "10", "2")]
    table = RouteTable([("m", versions, None)])
    assert table.lookup("m") is versions[1]
    assert [entry.version for entry in table.models()[0][1]] == ["10", "9", "2"]


@pytest.mark.parametrize("number", ["1", "10", "100", "999999999999999999"])
def test_a_version_is_found_by_its_whole_number(number: str) -> None:
    versions = [version("m", each) for each in ("1", "10", "100", "999999999999999999")]
    assert RouteTable([("m", versions, None)]).lookup("m", number).version == number


def test_a_version_that_is_not_served_is_not_found_and_those_that_are_are_listed() -> None:
    table = RouteTable([("m", [version("m", "1"), version("m", "12")], None)])
    for number in ("2", "11", "123", "999999999999999999"):
        assert refusal(table, "m", number) == (
            NOT_FOUND, f"model 'm' has no version '{number}'; served: 12, 1")


@pytest.mark.parametrize("number", ["0", "01", "-1", "+1", " 1", "1 ", "1.0", "abc", "latest", "1\0", "१", "9" * 19,
                                    "9" * 40])
def test_a_version_that_is_no_number_is_invalid(number: str) -> None:
    code, message = refusal(RouteTable([("m", [version("m")], None)]), "m", number)
    assert code == INVALID_ARGUMENT
    assert "of model 'm' is not a version number: expected 1 to 18 digits without a leading zero" in message


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "a\0b", "\0", "a\n", "é", "模型", "m%", "m:1", "x" * 129,
                                  "x" * 5000])
def test_a_name_that_breaks_the_rules_is_invalid_and_shown_escaped_and_cut(name: str) -> None:
    code, message = refusal(RouteTable([("m", [version("m")], None)]), name)
    assert code == INVALID_ARGUMENT
    assert "is not allowed: expected 1 to 128 of A-Z a-z 0-9 _ . -" in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("name", ["M", "mm", "", "m.", "-", "..", "x" * 128])
def test_a_name_that_nobody_serves_is_not_found(name: str) -> None:
    code, message = refusal(RouteTable([("m", [version("m")], None)]), name)
    assert code == NOT_FOUND
    assert ("unknown model" if name else "names no model") in message


@pytest.mark.parametrize(("reason", "number"), [
    ((UNAVAILABLE, "model 'm' is loading"), ""), ((UNAVAILABLE, "model 'm' is loading"), "3"),
    ((FAILED_PRECONDITION, "model 'm' could not be loaded: bad file"), ""),
])
def test_a_known_model_without_a_version_answers_with_its_reason(reason: tuple[int, str], number: str) -> None:
    table = RouteTable([("other", [version("other")], None), ("m", [], reason), ("n", [], (UNAVAILABLE, "no"))])
    assert refusal(table, "m", number) == reason
    assert refusal(table, "n") == (UNAVAILABLE, "no")
    assert table.models()[1] == ("m", [])


def test_an_empty_table_knows_no_model() -> None:
    assert refusal(RouteTable([]), "m")[0] == NOT_FOUND
    assert RouteTable([]).models() == []


def test_a_model_is_in_a_table_once() -> None:
    with pytest.raises(ValueError, match="'m' is in the route table twice"):
        RouteTable([("m", [version("m")], None), ("n", [version("n")], None), ("m", [], (UNAVAILABLE, "no"))])


@pytest.mark.parametrize(("first", "second"), COLLIDING)
def test_names_of_one_hash_are_told_apart(first: str, second: str) -> None:
    assert fnv1a(first.encode()) == fnv1a(second.encode())
    table = RouteTable([(first, [version(first)], None)])
    assert table.lookup(first).name == first.encode()
    assert refusal(table, second)[0] == NOT_FOUND
    both = RouteTable([(name, [version(name)], None) for pair in COLLIDING for name in pair])
    for pair in COLLIDING:
        for name in pair:
            assert both.lookup(name).name == name.encode()


def test_names_that_share_a_slot_are_found_one_behind_the_other() -> None:
    by_slot: dict[int, list[str]] = {}
    for number in range(2_000):
        by_slot.setdefault(fnv1a(f"m{number}".encode()) % 16, []).append(f"m{number}")
    crowded = by_slot[15][:8]
    table = RouteTable([(name, [version(name)], None) for name in crowded])
    for name in crowded:
        assert table.lookup(name).name == name.encode()
    assert refusal(table, by_slot[15][8])[0] == NOT_FOUND
    assert refusal(table, by_slot[0][0])[0] == NOT_FOUND


@given(st.sets(st.text(NAME_CHARACTERS, min_size=1, max_size=128), max_size=40), st.text(NAME_CHARACTERS, max_size=128))
def test_every_name_is_found_and_no_other(names: set[str], other: str) -> None:
    table = RouteTable([(name, [version(name)], None) for name in names])
    for name in names:
        assert table.lookup(name).name == name.encode()
    if other not in names:
        assert refusal(table, other)[0] == NOT_FOUND
    assert {name for name, _ in table.models()} == names


@given(st.text(max_size=200), st.text(max_size=50))
def test_whatever_a_client_sends_as_name_and_version_is_answered(name: str, number: str) -> None:
    table = RouteTable([("m", [version("m")], None)])
    name, number = (text.encode("utf-8", "replace").decode() for text in (name, number))
    if name == "m" and number in ("", "1"):
        assert table.lookup(name, number).version == "1"
    else:
        code, message = refusal(table, name, number)
        assert code in (INVALID_ARGUMENT, NOT_FOUND)
        assert message.isascii()
