"""Settings of what happens to requests between the wire and the model: batches, queues, and what comes beside them.

The part of `config.Settings` that is about load. Any thread; immutable.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from infer.config_values import Count, setting


class AdmissionSettings(BaseModel):
    """How requests are gathered, and how many may wait."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_size: Count = setting(
        1024, "Rows that one request may carry, for a model without configuration.", "ROWS", "1024 rows",
        ge=1, le=1 << 20)
    gather_rows: Count = setting(
        64, "Rows that a batch gathers, for a model without configuration.", "ROWS", "64 rows", ge=1, le=1 << 20)
    max_queue_delay_us: Count = setting(
        0, "How long a batch may wait for more rows.", "MICROSECONDS", "0 us", ge=0, le=10_000_000)
    max_queue_rows: Count = setting(
        4096, "Rows that may wait, per model; more are refused.", "ROWS", "4096 rows", ge=1, le=1 << 30)
