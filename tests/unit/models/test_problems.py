"""Problems: one text form, and codes that exist."""

from __future__ import annotations

import json

import pytest

from infer.models.problems import CODES, Problem, described, error, errors_of, nearest, warning


def test_text_says_where_what_and_what_to_do() -> None:
    problem = error("m/config.pbtxt:3:1", "max_batch_size", "E103", expected="a whole number from 0", got="-1",
                    fix="write 0 for no batching")
    assert str(problem) == ("m/config.pbtxt:3:1: max_batch_size: expected a whole number from 0, got -1; write 0 for "
                            "no batching [E103]")
    assert problem.is_error


@pytest.mark.parametrize(("problem", "text"), [
    (warning("f:1", "metric_tags", "W101", cause="is not honoured"), "f:1: metric_tags: is not honoured [W101]"),
    (error("f", "", "E100", got="a directory"), "f: got a directory [E100]"),
    (error("f:2", "name", "E106", fix="write it"), "f:2: name: write it [E106]"),
    (error("f:2", "name", "E106", cause="is missing", expected="a name", fix="write it"),
     "f:2: name: is missing, expected a name; write it [E106]"),
])
def test_text_leaves_out_what_is_not_said(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_code_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="E999"):
        error("f", "x", "E999")


def test_codes_say_their_severity() -> None:
    assert all(code[0] in "EW" and len(code) == 4 for code in CODES)


def test_many_problems_are_one_text_and_json() -> None:
    first, second = error("f:1", "a", "E102", cause="is unknown"), warning("f:2", "b", "W101")
    assert described([first], "the models") == "one problem with the models:\n  f:1: a: is unknown [E102]"
    assert described([first, second], "f").splitlines()[0] == "2 problems with f:"
    assert errors_of([first, second]) == [first]
    assert json.loads(json.dumps(second.as_dict()))["code"] == "W101"


@pytest.mark.parametrize(("name", "found"), [("max_bach_size", "max_batch_size"), ("Max-Batch-Size", "max_batch_size"),
                                             ("zzz", "")])
def test_nearest(name: str, found: str) -> None:
    assert nearest(name, ["max_batch_size", "input"]) == found
