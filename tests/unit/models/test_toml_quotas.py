"""Quotas of tenants and models in the server's TOML file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from infer.errors import ConfigError
from infer.models.toml_models import parse_toml_models
from infer.models.toml_quotas import parse_toml_quotas, read_toml_quotas
from infer.models.written import read_written, written_models
from infer.quotas import NONE, Limits, Quotas, TenantQuota, differences

FILE = Path("/etc/infer.toml")
TEXT = """
port = 8001

[tenants.acme]
requests_per_second = 0.1
rows_per_second = "3/7"
rows_burst = "2k"
max_concurrent = 64
max_in_flight_bytes = "64MiB"
weight = 3

[tenants.acme.models.fraud]
requests_per_second = 10

[tenants."*"]
requests_per_second = 2.5

[tenants.""]
max_concurrent = 1

[tenants."spiffe://example/ns/a"]

[models.fraud]
max_batch_size = 8

[models.fraud.limits]
requests_per_second = 1000
requests_burst = 1

[models.other]
max_batch_size = 8
"""


def said(text: str) -> list[str]:
    return [str(problem).removeprefix(f"{FILE}:") for problem in parse_toml_quotas(text, FILE)[1]]


def test_every_setting() -> None:
    quotas, problems = parse_toml_quotas(TEXT, FILE)
    assert problems == []
    assert quotas == Quotas(
        tenants={
            "acme": TenantQuota(
                Limits(requests_per_second=Fraction(1, 10), requests_burst=1, rows_per_second=Fraction(3, 7),
                       rows_burst=2000, max_concurrent=64, max_in_flight_bytes=64 << 20), 3,
                {"fraud": Limits(requests_per_second=Fraction(10), requests_burst=10)}),
            "": TenantQuota(Limits(max_concurrent=1)),
            "spiffe://example/ns/a": TenantQuota()},
        others=TenantQuota(Limits(requests_per_second=Fraction(5, 2), requests_burst=3)),
        models={"fraud": Limits(requests_per_second=Fraction(1000), requests_burst=1)}, listed=True)


def test_those_who_read_models_leave_their_limits_alone() -> None:
    found = parse_toml_models(TEXT, FILE)
    assert found.problems == ()
    assert [each.name for each in found.models] == ["fraud", "other"]
    [problem] = parse_toml_models("[models.m]\nlimit = 3\n", FILE).problems
    assert "did you mean 'limits'?" in str(problem)


@pytest.mark.parametrize("text", ["", "port = 1", "not toml", "[models.m]\nmax_batch_size = 1", "models = 3"])
def test_a_file_without_quotas(text: str) -> None:
    assert parse_toml_quotas(text, FILE) == (NONE, [])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert read_toml_quotas(tmp_path / "none.toml") == (NONE, [])


@pytest.mark.parametrize("rate", ["0", "-1", "true", "inf", "nan", '"x"', '"1/0"', '"0.0"', "[1]", "1e300"])
def test_rates_that_are_none(rate: str) -> None:
    [problem] = said(f"[tenants.a]\nrequests_per_second = {rate}\n")
    assert problem.startswith("2:1: tenants.a.requests_per_second: ")
    assert 'expected a number a second above 0, such as 100, 0.5 or "3/7"' in problem


def test_every_problem_at_once_with_its_place() -> None:
    assert said("""
[tenants.a]
requests_per_secnd = 3
rows_burst = 4
max_concurrent = 0
weight = 1001

[tenants.a.models."b c"]
weight = 2
nothing = 1

[tenants."tab\\t"]
max_in_flight_bytes = "much"

[tenants]
plain = 3

[models.m]
limits = 5

[models.n.limits]
requests_per_second = "1/10000000"
requests_burst = 1000000
""") == [
        "3:1: tenants.a.requests_per_secnd: is no limit; did you mean 'requests_per_second'? [E102]",
        "4:1: tenants.a.rows_burst: is the burst of no rate: no rows_per_second; add it [E106]",
        "5:1: tenants.a.max_concurrent: expected 1 to 9007199254740992, got 0; correct the value [E103]",
        "6:1: tenants.a.weight: expected 1 to 1000, got 1001; correct the value [E103]",
        "8:1: tenants.a.models.b c: expected a model's name, of 1 to 128 of A-Z a-z 0-9 _ . -, got 'b c'; correct the "
        "value [E103]",
        "9:1: tenants.a.models.b c.weight: is no limit; one of requests_per_second, requests_burst, rows_per_second, "
        "rows_burst, max_concurrent, max_in_flight_bytes [E102]",
        "10:1: tenants.a.models.b c.nothing: is no limit; one of requests_per_second, requests_burst, rows_per_second, "
        "rows_burst, max_concurrent, max_in_flight_bytes [E102]",
        "12:1: tenants.tab\t: expected a name of at most 255 printable ASCII characters, got 'tab\\t'; correct the "
        "value [E103]",
        "13:1: tenants.tab\t.max_in_flight_bytes: expected a size such as 65536, 64MiB or 1k, got 'much'; correct the "
        "value [E103]",
        "16:1: tenants.plain: expected a table, got 3; correct the value [E103]",
        "19:1: models.m.limits: expected a table, got 5; correct the value [E103]",
        "22:1: models.n.limits.requests_per_second: is more than can be counted exactly, got 1/10000000 a second with "
        "a burst of 1000000; write a rate of fewer digits, or a smaller burst [E109]",
    ]


def test_what_is_written_for_models_comes_with_quotas(tmp_path: Path) -> None:
    file = tmp_path / "infer.toml"
    file.write_text("[models.m]\nmax_batch_size = 2\nlimits.max_concurrent = 3\n")
    written = written_models(None, file)
    assert written.models["m"].max_batch_size == 2
    assert written.quotas == Quotas(models={"m": Limits(max_concurrent=3)})
    file.write_text("[models.m]\nmax_batch_size = 'x'\nlimits.max_concurent = 3\n")
    assert [problem.code for problem in read_written(None, file).problems] == ["E103", "E102"]
    with pytest.raises(ConfigError, match="2 problems with the settings of models and tenants"):
        written_models(None, file)


def test_differences_in_words() -> None:
    old, _ = parse_toml_quotas(TEXT, FILE)
    new, _ = parse_toml_quotas(TEXT.replace("weight = 3", "").replace("0.1", "0.2").replace("= 2.5", "= 3"), FILE)
    assert differences(old, old) == []
    assert differences(old, new) == [
        "[tenants.\"*\"] requests_per_second: 5/2 -> 3",
        "[tenants.acme] requests_per_second: 1/10 -> 1/5",
        "[tenants.acme] weight: 3 -> unset",
    ]
    assert differences(NONE, new)[-1] == "[models.fraud.limits] requests_burst: unset -> 1"
