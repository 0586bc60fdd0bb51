"""Settings of how traffic is divided over versions. The part of `config.Settings` that is about it. Immutable."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from infer.config_values import Count, Size, setting


class TrafficSettings(BaseModel):
    """What requests are told apart by where a model's traffic is divided, and what copies of them may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_shadow_copies: Count = setting(
        1024, "Copies of requests that may wait for their shadows; more are dropped.", "N", "1024 copies", ge=1,
        le=1 << 20)
    max_shadow_bytes: Size | None = setting(
        None, "Bytes of requests and replies that copies may hold.", "SIZE", "a sixteenth of the memory limit", ge=1)
