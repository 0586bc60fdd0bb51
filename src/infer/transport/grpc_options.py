"""Our settings as grpcio calls them: limits, and the certificates of handshakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from infer.config import flag_of

if TYPE_CHECKING:
    from infer.config import Settings
    from infer.transport import CertificateSource

# Settings that nothing of grpcio's stands for.
UNSUPPORTED = ("max_buffered_bytes", "outbound_bytes", "stream_outbound_bytes", "max_connections", "settings_timeout",
               "write_stall_timeout", "reply_compression", "max_coding_jobs", "max_early_resets", "max_stream_errors",
               "max_settings_frames", "max_ping_strikes", "max_empty_frames", "max_oversize_headers",
               "max_window_updates", "max_idle_frames", "max_queued_frames", "max_turn_events")
# Milliseconds as grpcio takes them; the largest stands for never.
MILLISECONDS_MAX = (1 << 31) - 1


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """Our limits as grpcio calls them."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_streams),
        # Between the two it refuses by chance.
        ("grpc.max_metadata_size", settings.header_bytes),
        ("grpc.absolute_max_metadata_size", settings.header_bytes),
        ("grpc.server_handshake_timeout_ms", round(settings.preface_timeout * 1000)),
        # A port that another program holds is a conflict.
        ("grpc.so_reuseport", 0),
        # Pings are no offence: clients of this protocol send many.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", milliseconds(settings.keepalive_time)),
        ("grpc.keepalive_timeout_ms", milliseconds(settings.keepalive_timeout)),
        ("grpc.max_connection_idle_ms", milliseconds(settings.max_connection_idle)),
        ("grpc.max_connection_age_ms", milliseconds(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", milliseconds(settings.max_connection_age_grace)),
    ]


def milliseconds(seconds: float) -> int:
    """A time of ours, where 0 is never."""
    return min(max(1, round(seconds * 1000)), MILLISECONDS_MAX) if seconds else MILLISECONDS_MAX


def unheeded(settings: Settings) -> list[str]:
    """The flags that were given and that this transport does not heed."""
    defaults = type(settings).model_fields
    return [flag_of(name) for name in UNSUPPORTED if getattr(settings, name) != defaults[name].default]


def server_credentials(certificates: CertificateSource) -> grpc.ServerCredentials:
    """What handshakes use: the certificate as it was when it was last looked at."""
    used = certificates.pem

    def configuration(pem: tuple[bytes, bytes, bytes | None]) -> Any:
        key, certificate, authority = pem
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def fetch() -> Any:
        # By a thread of grpcio, once a handshake; None: as before.
        nonlocal used
        if certificates.pem is used:
            return None
        used = certificates.pem
        return configuration(used)

    return grpc.dynamic_ssl_server_credentials(configuration(used), fetch, used[2] is not None)
