"""What is wrong with a model's files, in the one form that logs, errors and `infer check` show. Pure; any thread.

A Problem names its place, what was expected, what was found there and what to do. Its code stays the same when its
words change: E for what refuses a model, W for what it is served in spite of.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning"]

# By hundreds: 1 configuration, 2 files and directories, 3 the model itself.
CODES = {
    "E100": "a configuration file that cannot be read",
    "E101": "text that is not of its format",
    "E102": "a field that does not exist",
    "E103": "a value of the wrong kind or out of its range",
    "E104": "a name that is not one of those to choose from",
    "E105": "a field that is given twice, or beside one that excludes it",
    "E106": "a field that is missing",
    "E107": "a platform or backend that is not served",
    "E108": "a name that is not the directory's",
    "E109": "values that do not fit each other",
    "E110": "something that cannot be left out without changing what the model answers",
    "E111": "a model that is configured twice",
    "W101": "a field that is not honoured",
    "W102": "a value that is honoured in part",
    "W103": "settings of a model that is not there",
    "E200": "a path that does not exist or cannot be read",
    "E201": "a directory in which there is no model",
    "E202": "a file that is not a model",
    "E203": "a Git LFS pointer in place of a file",
    "E204": "several model files where one is expected",
    "E205": "a model that is not in a version directory",
    "E206": "a name that a model cannot have",
    "E207": "a name that is found twice",
    "E208": "a link that leads out of the repository",
    "E209": "a file that is not whole",
    "E210": "external data that is missing, cut short or not the model's own",
    "E211": "checksums that are missing or that the files do not have",
    "E212": "more files or directories than a version may have",
    "E213": "a model directory of MLflow that cannot be read",
    "W201": "a directory that is left aside for its name",
    "W202": "a version directory that is left aside since there is no model in it",
    "E301": "a configured tensor that the model does not have, or the other way round",
    "E302": "a configured tensor whose type is not the model's",
    "E303": "configured dims that are not the model's",
    "E304": "batching asked of a model whose first dimension is fixed",
    "E305": "dims that hold the batch dimension",
    "E306": "an operator set or operator that the runtime does not have",
    "E307": "a model that the runtime refuses",
    "E308": "a model that asks for more memory than there is",
    "E309": "a model without an output that can be served",
    "W301": "an output that is not a tensor and is left out",
    "W302": "a model that is not batched, though it might be",
}

# What to do where expected and got say all that is to be said.
_ADVICE = {
    "E101": "correct the text",
    "E103": "correct the value",
    "E104": "write one of these",
    "E105": "remove one of them",
    "E106": "add it",
    "E109": "change one of them",
    "E301": "correct the name, or remove it",
}


@dataclass(frozen=True)
class Problem:
    """One finding. `place` is a path, a path with line, or with line and column: `models/m/config.pbtxt:3:1`."""

    place: str
    severity: Severity
    field: str                  # the field or the file that it is about; "" where the place says it all
    expected: str               # "" where nothing in particular was
    got: str
    fix: str                    # what to do, in the imperative
    code: str
    cause: str = ""             # where expected and got do not say it

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code} is not a code of problems")

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    def __str__(self) -> str:
        said = ", ".join(part for part in (self.cause, self.expected and f"expected {self.expected}",
                                           self.got and f"got {self.got}") if part)
        named = ": ".join(part for part in (self.place, self.field) if part)
        return f"{named}: {'; '.join(part for part in (said, self.fix) if part)} [{self.code}]"

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def error(place: str, field: str, code: str, *, expected: str = "", got: str = "", fix: str = "",
          cause: str = "") -> Problem:
    return Problem(place, "error", field, expected, got, fix or _ADVICE.get(code, ""), code, cause)


def warning(place: str, field: str, code: str, *, expected: str = "", got: str = "", fix: str = "",
            cause: str = "") -> Problem:
    return Problem(place, "warning", field, expected, got, fix or _ADVICE.get(code, ""), code, cause)


def errors_of(problems: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.is_error]


def described(problems: Sequence[Problem], about: str) -> str:
    """All of them as one text: `2 problems with ABOUT:`, then one a line."""
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n  ".join([f"{count} with {about}:", *(str(problem) for problem in problems)])


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, or ""."""
    by_fold = {other.casefold().replace("-", "_"): other for other in known}
    close = difflib.get_close_matches(name.casefold().replace("-", "_"), list(by_fold), 1)
    return by_fold[close[0]] if close else ""
