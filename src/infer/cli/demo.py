"""`infer demo`: the bundled models, served and called with the real data that training did not see."""

from __future__ import annotations

import collections
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import click

from infer.errors import InferError, Unavailable

START_SECONDS = 60.0
STOP_SECONDS = 20.0
DIGITS_DRAWN = 5
SHADES = " .:-=+*#%@"
LOAD_SECONDS = 1.0
CONNECTIONS, STREAMS = 4, 64


class ServerProcess:
    """`infer serve` of the example models on free ports, as a process of its own; stopped at the end of the `with`."""

    def __init__(self, directory: Path) -> None:
        self._arguments = [sys.executable, "-m", "infer", "serve", str(directory), "--host", "127.0.0.1", "--port", "0",
                           "--http-port", "0", "--log-format", "json", "--drain-delay", "0"]
        self._lines: collections.deque[str] = collections.deque(maxlen=20)
        self._serving = threading.Event()
        self.address = ""

    def __enter__(self) -> ServerProcess:
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        if not self._serving.wait(START_SECONDS) or not self.address:
            self._stop()
            raise Unavailable("the server did not start:\n" + "".join(self._lines))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()

    def _read(self, stream: IO[str]) -> None:
        """Its log, to the end: the line that says where it serves, and the last ones in case it fails."""
        for line in stream:
            self._lines.append(line)
            if not self.address:
                self.address = serving_address(line)
                if self.address:
                    self._serving.set()
        self._serving.set()


def serving_address(line: str) -> str:
    """The gRPC address that a log line announces, "" for any other line."""
    try:
        record = json.loads(line)
    except ValueError:
        return ""
    addresses = record.get("grpc") if isinstance(record, dict) else None
    return str(addresses[0]) if isinstance(addresses, list) and addresses else ""


@click.command("demo")
def command() -> None:
    """Serve the bundled models, call them with held-out real data, compare with scikit-learn.

    Exit status 0 when the accuracy through the server equals scikit-learn's on the same rows, for every model.
    """
    from infer.cli.samples import EXAMPLES, examples_directory

    try:
        # Served from a copy: an installer may have made hard links of the package's files, which a repository may not
        # hold.
        with tempfile.TemporaryDirectory() as copy, ServerProcess(
                shutil.copytree(examples_directory(), Path(copy, "models"))) as server:
            click.echo(f"serving {' and '.join(EXAMPLES)} on {server.address}")
            equal = [_show(server.address, model) for model in EXAMPLES]
    except (InferError, ConnectionError) as error:
        click.echo(f"infer demo: {error}", err=True)
        raise SystemExit(1) from None
    raise SystemExit(0 if all(equal) else 1)


def _show(address: str, model: str) -> bool:
    """One model's predictions, accuracy and speed; whether the accuracy is scikit-learn's."""
    from infer.cli.client import Client
    from infer.cli.samples import load_sample
    from infer.client.messages import encode_request
    from infer.versions import NOT_BUILT, native_is_built

    sample = load_sample(model)
    if sample is None:
        raise Unavailable(f"the sample of {model} is missing beside its model")
    predicted = []
    with Client(address, timeout=10.0) as client:
        for row in range(sample.rows):
            arrays = {name: array[row:row + 1] for name, array in sample.inputs.items()}
            predicted.append(int(client.infer(model, arrays)["label"][0]))
    click.echo(f"\n{model}: {sample.rows} held-out rows, one call each")
    if model == "digits":
        click.echo(draw(sample.inputs["image"], predicted, sample.truth.tolist()))
    else:
        click.echo(_listed(predicted, sample))
    truth, reference = sample.truth.tolist(), sample.expected["label"].tolist()
    ours, theirs = _right(predicted, truth), _right(reference, truth)
    same = sum(a == b for a, b in zip(predicted, reference, strict=True))
    click.echo(f"  accuracy    {ours / sample.rows:.4f} ({ours} of {sample.rows}) through the server, "
               f"{theirs / sample.rows:.4f} ({theirs}) by scikit-learn; {same} predictions are equal")

    if native_is_built():
        _measure(address, encode_request(model, arrays))
    else:
        click.echo(f"  latency and throughput are not measured: {NOT_BUILT}")
    return ours == theirs


def _measure(address: str, payload: bytes) -> None:
    """Latency of one call at a time, rate of many."""
    from infer._core import load_client
    from infer.client.calls import INFER_PATH

    alone = load_client.run(address, INFER_PATH, payload, duration_s=LOAD_SECONDS, warmup_s=0.2)
    full = load_client.run(address, INFER_PATH, payload, CONNECTIONS, STREAMS, duration_s=LOAD_SECONDS, warmup_s=0.2)
    click.echo(f"  latency     {alone.p50_us:,.0f} us p50, {alone.p99_us:,.0f} us p99, one call at a time")
    limit = ", limited by the generator" if full.bottleneck else ""
    click.echo(f"  throughput  {full.rate:,.0f} predictions/s, {CONNECTIONS} connections x {STREAMS} calls, "
               f"p99 {full.p99_us / 1e3:,.2f} ms{limit}")


def _right(predicted: list[int], truth: list[int]) -> int:
    return sum(a == b for a, b in zip(predicted, truth, strict=True))


def chosen_rows(predicted: list[int], truth: list[int]) -> list[int]:
    """The first rows, of which the last gives way to the first mistake."""
    rows = list(range(min(DIGITS_DRAWN, len(truth))))
    mistakes = [row for row in range(len(truth)) if predicted[row] != truth[row]]
    if mistakes and mistakes[0] not in rows:
        rows[-1] = mistakes[0]
    return rows


def draw(images: Any, predicted: list[int], truth: list[int]) -> str:
    """A few 8x8 images side by side, two characters to a pixel, over what was predicted and what they are."""
    rows = chosen_rows(predicted, truth)
    lines = []
    for y in range(8):
        lines.append("  " + "  ".join(
            "".join(SHADES[min(int(images[row][y * 8 + x] / 16 * (len(SHADES) - 1)), len(SHADES) - 1)] * 2
                    for x in range(8)) for row in rows).rstrip())
    verdicts = (verdict(str(predicted[row]), str(truth[row])) for row in rows)
    return "\n".join([*lines, "  " + "  ".join(text.ljust(16) for text in verdicts).rstrip()])


def verdict(predicted: str, truth: str) -> str:
    return f"got {predicted}, is {truth}" + ("" if predicted == truth else " !")


def _listed(predicted: list[int], sample: Any) -> str:
    truth, names = sample.truth.tolist(), sample.classes
    return "\n".join(f"  row {row:>3}: {verdict(names[predicted[row]], names[truth[row]])}"
                     for row in chosen_rows(predicted, truth))
