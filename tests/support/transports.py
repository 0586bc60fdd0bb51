"""The two transports that the suite runs on, and the rows in which grpcio's library cannot do what ours does.

A row is a test's name, with its parameters in brackets where only those differ. Its test is expected to fail on grpcio:
one that passes is a stale row, and fails the suite. CONTRIBUTING prints the table.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

NATIVE, GRPCIO = "native", "grpcio"
TRANSPORTS = (NATIVE, GRPCIO)
# A row in which grpcio says nothing at all waits no longer than this.
SILENCE_SECONDS = 3.0


class Difference(NamedTuple):
    rows: tuple[str, ...]
    what: str


DIFFERENCES = (
    Difference(("test_F1_connection_reset_in_the_middle_of_a_message", "test_F4_deadline_while_the_message_comes"),
               "it keeps a message to itself until it is whole: what has come so far is in no gauge, and a call that "
               "ends before is in no counter"),
    Difference(("test_at_most_so_many_requests_of_a_stream_are_under_way",
                "test_a_reader_that_does_not_read_holds_up_its_own_stream_alone"),
               "messages of a stream that are not read yet, and replies that are not sent, are in no gauge"),
    Difference((r"test_B39_B44_C1_later_messages_of_a_stream[\x00\x00]",
                r"test_B39_B44_C1_later_messages_of_a_stream[\x00\x00\x00\x00\x03ab]",
                r"test_B39_B44_C1_later_messages_of_a_stream[\x07\x00\x00\x00\x00]"),
               "B43, B44: a stream that ends within a message ends with OK; bits of the flag are ignored"),
    Difference(("test_F6_deadline_that_has_passed",), "it ends a call whose deadline has passed and does not count it"),
    Difference(("test_F35_drain_under_load_loses_nothing",),
               "F35: calls that were sent before the client has seen GOAWAY end with CANCELLED"),
    Difference(("test_the_1025th_stream_is_refused",), "it holds to the limit and does not count what it refused"),
    Difference(("test_metrics_agree_with_what_clients_saw",), "it does not show connections, streams and refusals"),
    Difference(("test_plaintext_to_the_tls_port",), "it logs no failed handshakes"),
    Difference(("test_wire_body[B39_one_byte_over_the_limit]",
                "test_B40_an_announcement_over_the_limit_is_refused_at_once"),
               "B39, B40: its refusal names no setting"),
    Difference(("test_wire_body[B41_no_message]", "test_B41_no_message_and_no_data_frame",
                "test_wire_body[B43_prefix_cut_short]", "test_wire_body[B43_message_cut_short]"),
               "B41, B43: a call that ends before its message is whole is not answered"),
    Difference(("test_wire_body[B42_two_messages]", "test_wire_body[B42_a_message_and_one_byte]"),
               "B42: what follows the first message is not looked at"),
    Difference(("test_wire_body[B44_compressed_flag_of_2]", "test_wire_body[C1_compressed_flag_without_an_encoding]",
                "test_C1_compressed_flag_with_identity"), "B44, C1: bits of the flag are ignored, or texts differ"),
    Difference(("test_B44_compressed_flag_of_2_with_an_encoding", "test_C3_one_that_does_not_inflate",
                "test_C4_a_bomb"),
               "B44, C3, C4: bits of the flag are ignored, nothing passes for a compressed message, texts differ"),
    Difference(("test_C5_unknown_encoding",), "C5: INTERNAL for an unknown encoding"),
    Difference(("test_H1_H2_content_type",), "H1: any content-type is taken"),
    Difference(("test_H3_te_is_not_insisted_on", "test_H3_te_says_trailers_or_nothing"),
               "H3: a call without te is reset"),
    Difference(("test_H4_method",), "H4: a method other than POST is reset"),
    Difference(("test_H5_H6_malformed_requests_are_reset", "test_H7_H17_fields_that_http2_forbids",
                "test_H8_neither_authority_nor_host", "test_H14_content_length", "test_H17_connect"),
               "H5 to H8, H14, H17: much of what HTTP/2 forbids is taken, the rest gets another error"),
    Difference(("test_H9_malformed_timeout[timeouts3]", "test_H9_malformed_timeout[timeouts4]"),
               "H9: nine digits and two timeouts are taken"),
    Difference(("test_H12_binary_metadata",), "H12: values that are joined by commas are not taken apart"),
    Difference(("test_H13_size_of_the_headers",), "H13: its refusal names no setting"),
    Difference(("test_H15_continuation_frames",), "H15: it sets no limit on CONTINUATION frames"),
    Difference(("test_trailers_that_end_the_request",), "trailers from a client are not understood"),
)
_REASONS = {row: difference.what for difference in DIFFERENCES for row in difference.rows}


def reason(name: str) -> str | None:
    """Why a test, named with its parameters, is expected to fail on grpcio."""
    test, _, rest = name.partition("[")
    parameters = rest.removesuffix("]").split("-")
    if GRPCIO not in parameters:
        return None
    rows = [test, *(f"{test}[{parameter}]" for parameter in parameters)]
    return next((_REASONS[row] for row in rows if row in _REASONS), None)


def mark(item: pytest.Item) -> None:
    """Expects the test to fail where it is a row."""
    why = reason(item.name)
    if why is not None:
        item.add_marker(pytest.mark.xfail(reason=f"grpcio: {why}", strict=True))


def seconds_of(request: pytest.FixtureRequest) -> float | None:
    """How long a test's peer waits; None: as long as it does by itself."""
    return SILENCE_SECONDS if reason(request.node.name) is not None else None


def printed() -> str:
    """The table for CONTRIBUTING."""
    def shown(rows: tuple[str, ...]) -> str:
        return ", ".join(f"`{re.sub('^test_', '', row)}`" for row in rows)

    return "\n".join(["| rows | grpcio |", "|---|---|",
                      *(f"| {shown(difference.rows)} | {difference.what} |" for difference in DIFFERENCES)]) + "\n"
