"""The cases of a file, sent by an unmodified tritonclient; runs in an environment that has it and nothing of ours.

    triton_script.py ADDRESS CASES.json ARRAYS.npz RESULTS.npz RESULTS.json [CA [CERTIFICATE KEY]]

A case: {"kind", "name", "model", "inputs": [[name, datatype, key of the array]], and as wanted "version", "outputs",
"request_id", "parameters", "priority", "timeout"}. Of the kind "alone" it is sent by itself, of the kind "burst"
together with all other bursts; either way by the synchronous and by the asyncio client, and, without a timeout, again
by each over one stream of them all. Arrays come back under <client>/<name>/<output>, BF16 as its bits; everything
else in the JSON file, under <client>/<name>.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as sync_client
import tritonclient.grpc.aio as aio_client
from tritonclient.utils import InferenceServerException

# What a test waits at most for one answer.
SECONDS = 60


def arguments_of(case, arrays):
    inputs = []
    for name, datatype, key in case["inputs"]:
        array = arrays[key]
        if datatype == "BF16":
            array = array.view(ml_dtypes.bfloat16)
        inputs.append(sync_client.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array))
    wanted = case.get("outputs")
    return {
        "model_name": case["model"], "inputs": inputs, "model_version": case.get("version", ""),
        "outputs": [sync_client.InferRequestedOutput(name) for name in wanted] if wanted is not None else None,
        "request_id": case.get("request_id", ""), "parameters": case.get("parameters"),
        "priority": case.get("priority", 0), "client_timeout": case.get("timeout", SECONDS),
    }


def stream_arguments_of(case, arrays):
    arguments = arguments_of(case, arrays)
    # The deadline is the stream's.
    del arguments["client_timeout"]
    return arguments


class Results:
    def __init__(self):
        self.arrays, self.notes = {}, {}

    def keep(self, key, result):
        reply = result.get_response()
        self.notes[key] = {"id": reply.id, "model": reply.model_name, "version": reply.model_version,
                           "parameters": sorted(reply.parameters),
                           "outputs": [[output.name, output.datatype, list(output.shape)] for output in reply.outputs]}
        for output in reply.outputs:
            array = result.as_numpy(output.name)
            if array.dtype == ml_dtypes.bfloat16:
                array = array.view(np.uint16)
            self.arrays[f"{key}/{output.name}"] = array

    def ended(self, key, result, error):
        if error is None:
            self.keep(key, result)
        else:
            self.failed(key, error)

    def failed(self, key, error):
        self.notes[key] = {"status": error.status(), "message": error.message()}


def tls_arguments(files):
    authority, certificate, key = (*files, None, None, None)[:3]
    return {"ssl": bool(files), "root_certificates": authority, "certificate_chain": certificate, "private_key": key}


def run_sync(address, cases, arrays, results, tls):
    with sync_client.InferenceServerClient(address, **tls_arguments(tls)) as client:
        facts = {"live": client.is_server_live(), "ready": client.is_server_ready(),
                 "server": client.get_server_metadata(as_json=True),
                 "unknown_ready": client.is_model_ready("no_such_model")}
        models = sorted({case["model"] for case in cases})
        for model in models:
            try:
                facts[model] = {"ready": client.is_model_ready(model), "ready_1": client.is_model_ready(model, "1"),
                                "ready_7": client.is_model_ready(model, "7"),
                                "metadata": client.get_model_metadata(model, as_json=True)}
            except InferenceServerException as error:
                facts[model] = {"status": error.status(), "message": error.message()}
        results.notes["sync facts"] = facts
        bursts = queue.Queue()
        sent = 0
        for case in cases:
            key = f"sync/{case['name']}"
            if case["kind"] == "burst":
                continue
            try:
                results.keep(key, client.infer(**arguments_of(case, arrays)))
            except InferenceServerException as error:
                results.failed(key, error)
        for case in cases:
            if case["kind"] == "burst":
                key = f"sync/{case['name']}"
                client.async_infer(
                    callback=lambda result, error, key=key: bursts.put((key, result, error)),
                    **arguments_of(case, arrays))
                sent += 1
        for _ in range(sent):
            key, result, error = bursts.get(timeout=SECONDS)
            results.ended(key, result, error)
        streamed = queue.Queue()
        client.start_stream(lambda result, error: streamed.put((result, error)))
        on_stream = [case for case in cases if "timeout" not in case]
        for case in on_stream:
            client.async_stream_infer(**stream_arguments_of(case, arrays))
        for case in on_stream:
            results.ended(f"sync stream/{case['name']}", *streamed.get(timeout=SECONDS))
        client.stop_stream()


async def run_aio(address, cases, arrays, results, tls):
    async with aio_client.InferenceServerClient(address, **tls_arguments(tls)) as client:
        results.notes["aio facts"] = {
            "live": await client.is_server_live(), "ready": await client.is_server_ready(),
            "server": await client.get_server_metadata(as_json=True),
            "unknown_ready": await client.is_model_ready("no_such_model")}

        async def one(case):
            key = f"aio/{case['name']}"
            try:
                results.keep(key, await client.infer(**arguments_of(case, arrays)))
            except InferenceServerException as error:
                results.failed(key, error)

        for case in cases:
            if case["kind"] != "burst":
                await one(case)
        await asyncio.gather(*(one(case) for case in cases if case["kind"] == "burst"))
        on_stream = [case for case in cases if "timeout" not in case]

        async def sent():
            for case in on_stream:
                yield stream_arguments_of(case, arrays)

        answers = client.stream_infer(sent())
        for case in on_stream:
            results.ended(f"aio stream/{case['name']}", *await anext(answers))


def main():
    address, cases_file, arrays_file, results_arrays, results_notes, *tls = sys.argv[1:]
    with open(cases_file) as file:
        cases = json.load(file)
    # Written by the test that started this: BYTES travel as objects.
    arrays = dict(np.load(arrays_file, allow_pickle=True))
    results = Results()
    run_sync(address, cases, arrays, results, tls)
    asyncio.run(run_aio(address, cases, arrays, results, tls))
    np.savez(results_arrays, **results.arrays)
    with open(results_notes, "w") as file:
        json.dump(results.notes, file)


main()
