"""RouteTable: names, versions, labels, reasons, and names whose hashes collide."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core.model_version import VersionEntry
from infer._core.router import ModelRoute, RouteTable, route_to_highest
from infer.errors import InferError

INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, UNAVAILABLE = 3, 5, 9, 14
NAME_CHARACTERS = string.ascii_letters + string.digits + "_.-"
# Pairs of names with one 64-bit FNV-1a hash.
COLLIDING = [("8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"), ("gMPflVXtwGDXbIhP73TX", "LtHf1prlU1bCeYZEdqWf"),
             ("pFuM83THhM-Qw8FI5FKo", ".jPx7rOtTDteKAwvfOEo")]


def version(name: str, number: str = "1") -> VersionEntry:
    return VersionEntry(name, number, None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                        queue_limit_rows=1, max_running=1, properties={})


def table_of(*versions: VersionEntry) -> RouteTable:
    """One model, "m", with these versions and no label."""
    return RouteTable([("m", route_to_highest(versions))])


def one(name: str) -> tuple[str, ModelRoute]:
    return name, route_to_highest([version(name)])


def refusal(table: RouteTable, name: str, number: str = "") -> tuple[int, str]:
    with pytest.raises(InferError) as caught:
        table.lookup(name, number)
    return caught.value.code, caught.value.message


def fnv1a(data: bytes) -> int:
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return value


def test_no_version_means_the_default_which_is_the_highest_by_number() -> None:
    versions = [version("m", number) for number in ("9", "10", "2")]
    table = table_of(*versions)
    assert table.lookup("m") is versions[1]
    assert [entry.version for entry in table.models()[0][1]] == ["10", "9", "2"]


def labelled() -> tuple[RouteTable, list[VersionEntry]]:
    """Versions 1 to 3: `stable` and the default are 2, `canary` is 3; 4 is loading and `next` points to it, 5 has
    failed."""
    versions = [version("m", number) for number in ("3", "2", "1")]
    unready = {"4": (UNAVAILABLE, "version 4 is loading"), "next": (UNAVAILABLE, "label 'next' waits for version 4"),
               "5": (FAILED_PRECONDITION, "version 5 is not a model")}
    route = ModelRoute(versions, {"stable": versions[1], "canary": versions[0]}, versions[1], unready)
    return RouteTable([("m", route), one("other")]), versions


@pytest.mark.parametrize(("named", "number"), [("", "2"), ("stable", "2"), ("canary", "3"), ("1", "1"), ("2", "2")])
def test_labels_and_the_default_lead_where_they_point(named: str, number: str) -> None:
    table, _ = labelled()
    assert table.lookup("m", named).version == number


@pytest.mark.parametrize(("named", "answer"), [
    ("4", (UNAVAILABLE, "version 4 is loading")), ("next", (UNAVAILABLE, "label 'next' waits for version 4")),
    ("5", (FAILED_PRECONDITION, "version 5 is not a model")),
])
def test_a_version_or_label_that_is_known_and_not_ready_answers_with_its_own_reason(
        named: str, answer: tuple[int, str]) -> None:
    assert refusal(labelled()[0], "m", named) == answer


@pytest.mark.parametrize(("named", "what"), [("latest", "label 'latest'"), ("Stable", "label 'Stable'"),
                                             ("1.0", "label '1.0'"), ("7", "version '7'")])
def test_what_is_not_known_is_not_found_and_what_there_is_is_listed(named: str, what: str) -> None:
    assert refusal(labelled()[0], "m", named) == (
        NOT_FOUND, f"model 'm' has no {what}; served: 3, 2, 1; labels: stable, canary; not ready: 4, next, 5")


def test_a_label_belongs_to_its_model() -> None:
    assert refusal(labelled()[0], "other", "canary") == (NOT_FOUND, "model 'other' has no label 'canary'; served: 1")


def test_ready_versions_without_a_default_are_reached_by_number_alone() -> None:
    entry = version("m", "3")
    reason = (UNAVAILABLE, "label 'stable' names version 2, which is loading")
    unready = {"2": (UNAVAILABLE, "loading"), "stable": reason}
    table = RouteTable([("m", ModelRoute([entry], {}, None, unready, reason))])
    assert refusal(table, "m") == refusal(table, "m", "stable") == reason
    assert table.lookup("m", "3") is entry


def test_a_model_with_versions_that_are_not_ready_does_not_know_others() -> None:
    loading = (UNAVAILABLE, "version 2 is loading")
    table = RouteTable([("m", ModelRoute(unready={"2": loading}, reason=loading))])
    assert refusal(table, "m") == refusal(table, "m", "2") == loading
    assert refusal(table, "m", "3") == (NOT_FOUND, "model 'm' has no version '3'; not ready: 2")


def test_the_route_of_a_model_is_given_back_as_it_was_given() -> None:
    route = ModelRoute(reason=(UNAVAILABLE, "loading"))
    table = RouteTable([("m", route)])
    assert table.route_of("m") is route
    assert table.route_of("n") is None


@pytest.mark.parametrize(("route", "complaint"), [
    (ModelRoute(), "neither a default version nor a reason"),
    (ModelRoute([version("m")], {}, version("m")), "not one of its versions"),
    (ModelRoute([version("m")], {"stable": version("m")}, None, {}, (UNAVAILABLE, "no")), "not one of its versions"),
    (ModelRoute((), {}, None, {"1": (UNAVAILABLE, "no"), "a b": (UNAVAILABLE, "no")}, (UNAVAILABLE, "no")),
     "'a b' is neither a version nor a label"),
    (ModelRoute((), {}, None, {"01": (UNAVAILABLE, "no")}, (UNAVAILABLE, "no")), "neither a version nor a label"),
    (route_to_highest([version("m")])._replace(unready={"1": (UNAVAILABLE, "no")}), "two versions or labels '1'"),
])
def test_a_route_that_contradicts_itself_is_refused(route: ModelRoute, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RouteTable([("m", route)])


@pytest.mark.parametrize("number", ["1", "10", "100", "999999999999999999"])
def test_a_version_is_found_by_its_whole_number(number: str) -> None:
    versions = [version("m", each) for each in ("1", "10", "100", "999999999999999999")]
    assert table_of(*versions).lookup("m", number).version == number


def test_a_version_that_is_not_served_is_not_found_and_those_that_are_are_listed() -> None:
    table = table_of(version("m", "1"), version("m", "12"))
    for number in ("2", "11", "123", "999999999999999999"):
        assert refusal(table, "m", number) == (
            NOT_FOUND, f"model 'm' has no version '{number}'; served: 12, 1")


@pytest.mark.parametrize("number", ["0", "01", "-1", "+1", " 1", "1 ", "a/b", "1\0", "१", "9" * 19, "9" * 40,
                                    "x" * 129])
def test_a_version_that_can_be_neither_number_nor_label_is_invalid(number: str) -> None:
    code, message = refusal(table_of(version("m")), "m", number)
    assert code == INVALID_ARGUMENT
    assert "of model 'm' is not a version number or label: expected 1 to 18 digits without a leading zero" in message


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "a\0b", "\0", "a\n", "é", "模型", "m%", "m:1", "x" * 129,
                                  "x" * 5000])
def test_a_name_that_breaks_the_rules_is_invalid_and_shown_escaped_and_cut(name: str) -> None:
    code, message = refusal(table_of(version("m")), name)
    assert code == INVALID_ARGUMENT
    assert "is not allowed: expected 1 to 128 of A-Z a-z 0-9 _ . -" in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("name", ["M", "mm", "", "m.", "-", "..", "x" * 128])
def test_a_name_that_nobody_serves_is_not_found(name: str) -> None:
    code, message = refusal(table_of(version("m")), name)
    assert code == NOT_FOUND
    assert ("unknown model" if name else "names no model") in message


@pytest.mark.parametrize(("reason", "number"), [
    ((UNAVAILABLE, "model 'm' is loading"), ""), ((UNAVAILABLE, "model 'm' is loading"), "3"),
    ((FAILED_PRECONDITION, "model 'm' could not be loaded: bad file"), ""),
])
def test_a_known_model_without_a_version_answers_with_its_reason(reason: tuple[int, str], number: str) -> None:
    table = RouteTable([one("other"), ("m", ModelRoute(reason=reason)), ("n", ModelRoute(reason=(UNAVAILABLE, "no")))])
    assert refusal(table, "m", number) == reason
    assert refusal(table, "n") == (UNAVAILABLE, "no")
    assert table.models()[1] == ("m", [])


def test_an_empty_table_knows_no_model() -> None:
    assert refusal(RouteTable([]), "m")[0] == NOT_FOUND
    assert RouteTable([]).models() == []


def test_a_model_is_in_a_table_once() -> None:
    with pytest.raises(ValueError, match="'m' is in the route table twice"):
        RouteTable([one("m"), one("n"), ("m", ModelRoute(reason=(UNAVAILABLE, "no")))])


@pytest.mark.parametrize(("first", "second"), COLLIDING)
def test_names_of_one_hash_are_told_apart(first: str, second: str) -> None:
    assert fnv1a(first.encode()) == fnv1a(second.encode())
    table = RouteTable([one(first)])
    assert table.lookup(first).name == first.encode()
    assert refusal(table, second)[0] == NOT_FOUND
    both = RouteTable([one(name) for pair in COLLIDING for name in pair])
    for pair in COLLIDING:
        for name in pair:
            assert both.lookup(name).name == name.encode()


def test_names_that_share_a_slot_are_found_one_behind_the_other() -> None:
    by_slot: dict[int, list[str]] = {}
    for number in range(2_000):
        by_slot.setdefault(fnv1a(f"m{number}".encode()) % 16, []).append(f"m{number}")
    crowded = by_slot[15][:8]
    table = RouteTable([one(name) for name in crowded])
    for name in crowded:
        assert table.lookup(name).name == name.encode()
    assert refusal(table, by_slot[15][8])[0] == NOT_FOUND
    assert refusal(table, by_slot[0][0])[0] == NOT_FOUND


@given(st.sets(st.text(NAME_CHARACTERS, min_size=1, max_size=128), max_size=40), st.text(NAME_CHARACTERS, max_size=128))
def test_every_name_is_found_and_no_other(names: set[str], other: str) -> None:
    table = RouteTable([one(name) for name in names])
    for name in names:
        assert table.lookup(name).name == name.encode()
    if other not in names:
        assert refusal(table, other)[0] == NOT_FOUND
    assert {name for name, _ in table.models()} == names


@given(st.text(max_size=200), st.text(max_size=50))
def test_whatever_a_client_sends_as_name_and_version_is_answered(name: str, number: str) -> None:
    table = table_of(version("m"))
    name, number = (text.encode("utf-8", "replace").decode() for text in (name, number))
    if name == "m" and number in ("", "1"):
        assert table.lookup(name, number).version == "1"
    else:
        code, message = refusal(table, name, number)
        assert code in (INVALID_ARGUMENT, NOT_FOUND)
        assert message.isascii()
