"""Settings of how traffic is divided over versions. The part of `config.Settings` that is about it. Immutable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from infer.config_values import Count, Size, routing_key, setting


class TrafficSettings(BaseModel):
    """What requests are told apart by where a model's traffic is divided, and what copies of them may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    routing_metadata_key: Annotated[str, Field(pattern="^[0-9a-z_.-]{0,128}$"), AfterValidator(routing_key)] = setting(
        "infer-routing-key", "Metadata that a split goes by before the request's parameter and tenant; empty for none.",
        "KEY")
    max_shadow_copies: Count = setting(
        1024, "Copies of requests that may wait for their shadows; more are dropped.", "N", "1024 copies", ge=1,
        le=1 << 20)
    max_shadow_bytes: Size | None = setting(
        None, "Bytes of requests and replies that copies may hold.", "SIZE", "a sixteenth of the memory limit", ge=1)
    max_outcomes: Count = setting(
        1 << 20, "Requests, and outcomes, that are remembered of each model whose outcomes are counted.", "N",
        "1 Mi of each", ge=1, le=1 << 30)
    capture_dir: Path | None = setting(
        None, "Directory that `infer capture` has calls written to; without it nothing is captured.", "DIR", "none")
