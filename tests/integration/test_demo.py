"""`infer demo`: what users see first, and that accuracy through the server is scikit-learn's."""

from __future__ import annotations

import re

import numpy as np

from infer.cli.samples import EXAMPLES, load_sample
from tests.support.command import run

ACCURACY = re.compile(r"^  accuracy +([\d.]+) \((\d+) of (\d+)\) through the server, ([\d.]+) \((\d+)\) by "
                      r"scikit-learn; (\d+) predictions are equal$", re.M)


def test_accuracy_is_that_of_scikit_learn() -> None:
    done = run("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"serving digits and trees on 127\.0\.0\.1:\d+\n", done.stdout)
    told = ACCURACY.findall(done.stdout)
    assert len(told) == len(EXAMPLES)
    for model, (ours, our_right, rows, theirs, their_right, equal) in zip(EXAMPLES, told, strict=True):
        sample = load_sample(model)
        assert sample is not None
        right = int(np.sum(sample.expected["label"] == sample.truth))
        assert (int(our_right), int(their_right), int(rows)) == (right, right, sample.rows)
        assert ours == theirs == f"{right / sample.rows:.4f}"
        assert int(equal) == sample.rows
        assert f"\n{model}: {sample.rows} held-out rows, one call each\n" in done.stdout
    assert len(re.findall(r"^  latency +[\d,]+ us p50, [\d,]+ us p99", done.stdout, re.M)) == len(EXAMPLES)
    rates = re.findall(r"^  throughput  ([\d,]+) predictions/s", done.stdout, re.M)
    assert len(rates) == len(EXAMPLES)
    assert all(int(rate.replace(",", "")) > 0 for rate in rates)
    assert "got 7, is 7" in done.stdout
    assert "@@" in done.stdout
