"""What is read from h2load's report."""

from pathlib import Path

import pytest

from bench.load import h2load

REPORT = """\
starting benchmark...
spawning thread #0: 4 total client(s). 12000 total requests
Application protocol: h2c
progress: 100% done

finished in 2.73s, 4400.65 req/s, 401.06KB/s
requests: 12000 total, 12000 started, 12000 done, 11990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 11990 2xx, 0 3xx, 0 4xx, 10 5xx
traffic: 1.07MB (1119882) total, 35.45KB (36300) headers (space savings 96.27%), 410.16KB (420000) data
                     min         max         mean         sd        +/- sd
time for request:      940us     71.11ms     57.68ms      1.25s    89.76%
time for connect:       95us       671us       353us       244us    50.00%
time to 1st byte:     1.73ms     53.66ms     28.80ms     22.24ms    50.00%
req/s           :    1100.35     1110.67     1105.43        4.41    50.00%
"""


def test_report_is_read() -> None:
    figures = h2load.parse(REPORT)
    assert (figures["total"], figures["succeeded"], figures["failed"]) == (12000, 11990, 10)
    assert (figures["2xx"], figures["5xx"], figures["data_bytes"]) == (11990, 10, 420000)
    assert (figures["duration_s"], figures["rate"]) == (2.73, 4400.65)
    assert (figures["min_us"], figures["max_us"], figures["mean_us"]) == pytest.approx((940, 71110, 57680))
    assert figures["sd_us"] == pytest.approx(1.25e6)


def test_other_output_is_an_error_that_shows_it() -> None:
    with pytest.raises(h2load.H2LoadError, match="something else"):
        h2load.parse("something else")


def test_log_gives_the_time_of_each_request(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1795415770929468\t200\t4623\n1795415770934116\t200\t279\n")
    assert h2load.read_log(log).tolist() == [4623, 279]
