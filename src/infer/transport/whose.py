"""Whose a call of grpcio is: what it knows its tenant by, for the pipeline. Another kind of identity comes in here, and
for the native transport in `identify` of its session."""

from __future__ import annotations

from typing import Any, NamedTuple

FROM_METADATA, FROM_CERTIFICATE = 0, 1
# Arguments of UnarySink.call; nothing is known.
NOBODYS: tuple[bytes | None, int] = (None, FROM_METADATA)


class Whose(NamedTuple):
    key: str = ""                   # metadata that names the tenant, in lower case; "" for none
    of_certificate: bool = False    # over TLS the client's certificate does

    def of(self, context: Any) -> tuple[bytes | None, int]:
        """Empty where there is none or more than one: that is no tenant's."""
        if self.of_certificate:
            shown = context.auth_context()
            if b"ssl" in shown.get("transport_security_type", ()):
                uris = list(shown.get("peer_uri", ()))
                return uris[0] if len(uris) == 1 else b"", FROM_CERTIFICATE
        named = [value for key, value in context.invocation_metadata() if key == self.key] if self.key else []
        if not named:
            return NOBODYS
        return named[0].encode() if len(named) == 1 else b"", FROM_METADATA
