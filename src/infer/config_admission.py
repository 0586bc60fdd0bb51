"""Settings of what happens to requests between the wire and the model: batches, queues, and what comes beside them.

The part of `config.Settings` that is about load. Any thread; immutable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from infer.config_values import Count, Seconds, Size, lower, parse_milliseconds, setting, tenant_key

YEAR_SECONDS = 365 * 86400
# Of models that ask for it themselves, where the server was not told how much.
CACHE_BYTES = 64 << 20


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
    slo_p99_ms: Annotated[float, BeforeValidator(parse_milliseconds)] = setting(
        0.0, "99% of calls shall end within this; rows and delay of batches are chosen for it. 0: they are as set.",
        "MILLISECONDS", "0", ge=0, le=600_000, live=True)
    adaptive_limit: bool = setting(
        False, "Refuse what would only wait longer: how many rows of a model may wait is found by what runs and "
        "waiting were measured to take.", "true|false", "false", live=True)
    max_tenants: Count = setting(
        4096, "Tenants without a table [tenants.NAME] that are told apart; more share one quota.", "N",
        "4096 tenants", ge=1, le=1 << 20)
    tenant_metadata_key: Annotated[str, Field(pattern="^[0-9a-z_.-]{1,128}$"), AfterValidator(tenant_key)] | None = (
        setting(None, "Metadata that says whose a call is; under mTLS the client certificate's URI does.", "KEY",
                "none"))
    max_queue_rows: Count = setting(
        4096, "Rows that may wait, per model; more are refused.", "ROWS", "4096 rows", ge=1, le=1 << 30)
    judge_deadlines: bool = setting(
        True, "Refuse a request that cannot be answered by its deadline, and do not run one that has become late, by "
        "what the model's runs were measured to take; false for models whose runs differ much for the same number of "
        "rows.",
        "true|false", "true")
    codel_target: Seconds = setting(
        0.005, "Beside two runs of the model, how long requests with a deadline may wait in a queue that stands and "
        "grows; 0 for as long as their deadlines allow.", "TIME", "5 ms", ge=0, le=3600)
    codel_interval: Seconds = setting(
        0.1, "How long no request may have waited less than that for a queue to stand.", "TIME", "100 ms", gt=0,
        le=3600)
    triton_status_codes: bool = setting(
        False, "Answer with Triton's status codes and texts: UNAVAILABLE where a queue is full or a time in it is "
        "over.",
        "true|false", "false")
    max_queue_bytes: Size | None = setting(
        None, "Request bytes that may wait, per model.", "SIZE", "an eighth of the memory limit", ge=1)
    max_queue_rows_total: Count | None = setting(
        None, "Rows that may wait, of all models.", "ROWS", "one for each 16 KiB of the memory limit", ge=1, le=1 << 40)
    max_queue_bytes_total: Size | None = setting(
        None, "Request bytes that may wait, of all models.", "SIZE", "a quarter of the memory limit", ge=1)

    cache: Size = setting(
        0, "Answers kept for identical requests to come, of every model; 0: of models with response_cache alone.",
        "SIZE", "0, and 64 MiB for those", ge=0)
    cache_model_bytes: Size = setting(
        0, "As much of the cache as one model may take; 0 for all of it.", "SIZE", "0", ge=0)
    cache_ttl: Seconds = setting(
        0.0, "Time that an answer is kept, up to a tenth less; 0 for as long as its version is loaded.", "TIME", "0",
        ge=0, le=YEAR_SECONDS)
    cache_shared: bool = setting(
        False, "Answer a tenant with what another one's request came to.", "true|false", "false")
    cache_rows: bool = setting(
        False, "Keep answers row by row, of models that batch: of a request those rows run that are not known.",
        "true|false", "false")
    cache_redis: str | None = setting(
        None, "A Redis that servers share as a second level of the cache; needs infer[redis].", "URL", "none")
    cache_redis_secret: Path | None = setting(
        None, "File with the secret of the servers that share it, 16 to 64 bytes.", "FILE", "none")
    cache_redis_timeout: Seconds = setting(
        0.005, "How long a request waits for it at most; what comes later is a miss.", "TIME", "5 ms", ge=0.001, le=10)
    cache_file: Path | None = setting(
        None, "Answers used last are written here at the end and kept again at the start, with what clients sent.",
        "FILE", "none: they are forgotten")

    breaker: Annotated[Literal["none", "previous", "unavailable"], BeforeValidator(lower)] = setting(
        "none", "What answers calls of a version that fails: it alone, the version below it, or UNAVAILABLE at once; a "
        "model's own in [models.NAME.breaker].", "none|previous|unavailable", live=True)
    breaker_error_rate: float = setting(
        0.5, "Share of failed calls at which a version is not called for a while.", "SHARE", gt=0, le=1,
        live=True)
    breaker_window: Seconds = setting(
        10.0, "How far back calls count for that.", "TIME", "10 s", ge=0.1, le=86400, live=True)
    breaker_open_for: Seconds = setting(
        5.0, "How long it is not called at first, before it is tried again; doubled each time in a row, up to 5 min.",
        "TIME", "5 s", ge=0.001, le=86400, live=True)
    run_timeout: Seconds = setting(
        0.0, "How long one run of a model may take; it is stopped then and its batch answered with DEADLINE_EXCEEDED.",
        "TIME", "0: as long as it likes", ge=0, le=86400, live=True)
