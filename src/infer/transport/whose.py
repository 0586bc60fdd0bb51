"""Whose a call of grpcio is, and what a split routes it by, for the pipeline. Another kind of identity comes in here,
and for the native transport in `identify` of its session."""

from __future__ import annotations

from typing import Any, NamedTuple

FROM_METADATA, FROM_CERTIFICATE = 0, 1
# Arguments of UnarySink.call; nothing is known.
Known = tuple[bytes | None, int, bytes | None]
NOBODYS: Known = (None, FROM_METADATA, None)


class Whose(NamedTuple):
    key: str = ""                   # metadata that names the tenant, in lower case; "" for none
    of_certificate: bool = False    # over TLS the client's certificate does
    routing_key: str = ""           # metadata with the routing key, as `key`

    def of(self, context: Any) -> Known:
        """What UnarySink.call is told beside the message and its time."""
        routing = None
        if self.routing_key:
            # Of several the last one stands, as for the native transport.
            for key, value in context.invocation_metadata():
                if key == self.routing_key and value:
                    routing = value.encode()
        return *self._tenant(context), routing

    def _tenant(self, context: Any) -> tuple[bytes | None, int]:
        """Empty where there is none or more than one: that is no tenant's."""
        if self.of_certificate:
            shown = context.auth_context()
            if b"ssl" in shown.get("transport_security_type", ()):
                uris = list(shown.get("peer_uri", ()))
                return uris[0] if len(uris) == 1 else b"", FROM_CERTIFICATE
        named = [value for key, value in context.invocation_metadata() if key == self.key] if self.key else []
        if not named:
            return None, FROM_METADATA
        return named[0].encode() if len(named) == 1 else b"", FROM_METADATA
