"""Protobuf's text format, read into a tree in which every field knows its line and column.

protobuf's own reader keeps no positions, and a problem has to name its place. The tree knows no schema: `typed` holds
it against one. Pure; any thread. The grammar: https://protobuf.dev/reference/protobuf/textformat-spec
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, NamedTuple

# Messages inside messages: no schema of ours comes near it, and the reader recurses.
DEPTH_MAX = 64

ScalarKind = Literal["integer", "float", "string", "name"]
Position = tuple[int, int]          # line and column, from 1


@dataclass(frozen=True)
class Scalar:
    """A value that is no message. A name is what stands without quotes: true, KIND_CPU, inf."""

    kind: ScalarKind
    value: int | float | str | bytes        # bytes for a string: what it means is for the schema to say
    text: str                               # as it was written
    line: int
    column: int


@dataclass(frozen=True)
class Field:
    """`name: value` or `name { ... }`; each element of a list is a Field of its own, at its own place."""

    name: str
    value: Scalar | Message
    line: int
    column: int


@dataclass(frozen=True)
class Message:
    fields: tuple[Field, ...]
    line: int
    column: int


class TextError(Exception):
    """Text that is not of the format: where, what was expected and what stands there."""

    def __init__(self, position: Position, expected: str, got: str, fix: str = "") -> None:
        super().__init__(f"{position[0]}:{position[1]}: expected {expected}, got {got}")
        self.line, self.column = position
        self.expected, self.got, self.fix = expected, got, fix


class _Token(NamedTuple):
    kind: str                       # a group of _TOKEN, or "end"
    text: str
    offset: int


_TOKEN = re.compile(r"""
    (?P<space> (?: [ \t\r\n\f\v]+ | \#[^\n]* )+ )
  | (?P<string> "(?: [^"\n\\] | \\[^\n] )*" | '(?: [^'\n\\] | \\[^\n] )*' )
  | (?P<float> (?: [0-9]+\.[0-9]* | \.[0-9]+ ) (?: [eE][+-]?[0-9]+ )? [fF]? | [0-9]+ [eE][+-]?[0-9]+ [fF]? | [0-9]+[fF])
    (?![0-9A-Za-z_.])
  | (?P<integer> 0[xX][0-9a-fA-F]+ | [0-9]+ ) (?![0-9A-Za-z_.])
  | (?P<name> [A-Za-z_][0-9A-Za-z_]* )
  | (?P<mark> [{}<>\[\]:;,\-./] )
""", re.VERBOSE)
_ESCAPE = re.compile(
    rb"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})|u(?P<four>[0-9a-fA-F]{4})"
    rb"|U(?P<eight>[0-9a-fA-F]{8})|(?P<plain>[abfnrtv?\\'\"])|(?P<wrong>.))", re.DOTALL)
_PLAIN = dict(zip(b"abfnrtv?\\'\"", (bytes([code]) for code in b"\a\b\f\n\r\t\v?\\'\""), strict=True))
_CLOSING = {"{": "}", "<": ">"}


def parse_text(text: str) -> Message:
    """The tree of a whole text. Raises TextError."""
    reader = _Reader(text)
    fields = reader.read_fields("", 0)
    return Message(tuple(fields), 1, 1)


class _Reader:
    """One look ahead over the tokens of a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._end = 0
        self._token = _Token("end", "", 0)
        self._advance()

    def read_fields(self, closing: str, depth: int) -> list[Field]:
        """Fields up to `closing`, which is left; "" stands for the end of the text."""
        fields: list[Field] = []
        while self._token.text != closing or (closing == "" and self._token.kind != "end"):
            if self._token.kind == "end":
                raise self._error(f"{closing!r} for a message that is still open", "the end of the text")
            self._read_field(fields, depth)
            if self._token.text in (";", ","):
                self._advance()
        return fields

    def _read_field(self, fields: list[Field], depth: int) -> None:
        start = self._token
        if start.text == "[":
            name = self._read_extension()
        elif start.kind == "name":
            name = start.text
            self._advance()
        else:
            raise self._error("a field's name")
        colon = self._token.text == ":"
        if colon:
            self._advance()
        if self._token.text == "[":
            self._advance()
            self._read_list(fields, name, colon, depth)
            return
        line, column = self._position(start.offset)
        fields.append(Field(name, self._read_value(colon, name, depth), line, column))

    def _read_list(self, fields: list[Field], name: str, colon: bool, depth: int) -> None:
        while self._token.text != "]":
            line, column = self._position(self._token.offset)
            fields.append(Field(name, self._read_value(colon, name, depth), line, column))
            if self._token.text == ",":
                self._advance()
                if self._token.text == "]":
                    raise self._error("a value after ','")
            elif self._token.text != "]":
                raise self._error("',' or ']'")
        self._advance()

    def _read_value(self, colon: bool, name: str, depth: int) -> Scalar | Message:
        opening = self._token
        if opening.text in _CLOSING:
            if depth == DEPTH_MAX:
                raise self._error(f"at most {DEPTH_MAX} messages inside one another")
            self._advance()
            inner = self.read_fields(_CLOSING[opening.text], depth + 1)
            self._advance()
            line, column = self._position(opening.offset)
            return Message(tuple(inner), line, column)
        if not colon:
            raise self._error(f"':' or '{{' after {name!r}", fix=f"write {name}: VALUE")
        return self._read_scalar()

    def _read_scalar(self) -> Scalar:
        first = self._token
        line, column = self._position(first.offset)
        if first.kind == "string":
            content = b""
            while self._token.kind == "string":
                content += self._unescaped(self._token)
                self._advance()
            return Scalar("string", content, first.text, line, column)
        sign = ""
        if first.text == "-":
            sign = "-"
            self._advance()
        token = self._token
        if token.kind == "integer":
            self._advance()
            return Scalar("integer", int(sign + "1") * self._integer(token), sign + token.text, line, column)
        if token.kind == "float":
            self._advance()
            return Scalar("float", float(sign + token.text.rstrip("fF")), sign + token.text, line, column)
        if token.kind == "name" and (not sign or token.text.lower() in ("inf", "infinity", "nan")):
            self._advance()
            return Scalar("name", sign + token.text, sign + token.text, line, column)
        raise self._error("a number" if sign else "a value")

    def _integer(self, token: _Token) -> int:
        text = token.text
        if text[:2] in ("0x", "0X"):
            return int(text, 16)
        if len(text) > 1 and text[0] == "0":
            if set(text) - set("01234567"):
                raise TextError(self._position(token.offset), "a number", repr(text),
                                "a number that begins with 0 is octal: leave the 0 out")
            return int(text, 8)
        return int(text)

    def _read_extension(self) -> str:
        """`[package.name]` or `[host/package.name]`, brackets kept."""
        start = self._token.offset
        while self._token.text != "]":
            self._advance()
            if self._token.text != "]" and self._token.kind != "name" and self._token.text not in (".", "/"):
                raise self._error("an extension's name and ']'")
        end = self._token.offset + 1
        self._advance()
        return self._text[start:end]

    def _unescaped(self, token: _Token) -> bytes:
        def one(match: re.Match[bytes]) -> bytes:
            octal, hexadecimal, plain = match["octal"], match["hex"], match["plain"]
            unicode = match["four"] or match["eight"]
            value = int(octal, 8) if octal else int(hexadecimal, 16) if hexadecimal else 0
            if plain:
                return _PLAIN[plain[0]]
            if unicode and (int(unicode, 16) > 0x10FFFF or 0xD800 <= int(unicode, 16) <= 0xDFFF):
                value = 256
            elif unicode:
                return chr(int(unicode, 16)).encode()
            if match["wrong"] or value > 255:
                raise TextError(self._position(token.offset), "escapes that mean a character",
                                match[0].decode("utf-8", "replace"), "write \\\\ for a backslash")
            return bytes([value])

        return _ESCAPE.sub(one, token.text[1:-1].encode())

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._end)
        if match and match.lastgroup == "space":
            self._end = match.end()
            match = _TOKEN.match(self._text, self._end)
        if match:
            self._token = _Token(str(match.lastgroup), match[0], match.start())
            self._end = match.end()
        elif self._end == len(self._text):
            self._token = _Token("end", "", self._end)
        else:
            raise self._unreadable()

    def _unreadable(self) -> TextError:
        position = self._position(self._end)
        rest = self._text[self._end:].partition("\n")[0]
        if rest[0] in "\"'":
            return TextError(position, "a string that ends on its line", rest, f"close it with {rest[0]}")
        if rest[0] == "=":
            return TextError(position, "':' and a value", "'='", "write ':' for '='")
        if rest.startswith(("//", "/*")):
            return TextError(position, "a field", repr(rest[:2]), "write '#' before a comment")
        word = re.match(r"[0-9A-Za-z_.]+", rest)
        return TextError(position, "a number" if word else "a field or a value", repr(word[0] if word else rest[0]))

    def _error(self, expected: str, got: str = "", fix: str = "") -> TextError:
        token = self._token
        found = got or ("the end of the text" if token.kind == "end" else repr(token.text))
        if token.text == "/":
            fix = "write '#' before a comment"
        return TextError(self._position(token.offset), expected, found, fix)

    def _position(self, offset: int) -> Position:
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1
