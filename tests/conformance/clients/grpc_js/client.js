// The steps of a file by @grpc/grpc-js, with messages from @grpc/proto-loader. See scenario.py.
"use strict";

const fs = require("fs");
const path = require("path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

// From the .proto files themselves, in the folders of PROTOS, as users of proto-loader have them.
const [address, , stepsFile, resultsFile, ...tls] = process.argv.slice(2);
const includeDirs = process.env.PROTOS.split(path.delimiter);
const definition = loader.loadSync(
  includeDirs.flatMap((folder) => fs.readdirSync(folder).filter((name) => name.endsWith(".proto"))),
  { keepCase: true, longs: String, enums: String, bytes: String, oneofs: false, defaults: false, includeDirs },
);

function methodOf(wanted) {
  const [, service] = wanted.split("/");
  const found = Object.values(definition[service]).find((each) => each.path === wanted);
  // A method that nobody knows travels as an empty call.
  return found || { ...definition[service].EmptyCall, path: wanted };
}

function pairs(metadata) {
  if (!metadata) return [];
  return Object.keys(metadata.getMap()).flatMap((key) => metadata.get(key).map(
    (value) => [key, Buffer.isBuffer(value) ? value.toString("base64") : value]));
}

function metadataOf(step) {
  const metadata = new grpc.Metadata();
  for (const [key, value] of step.metadata) {
    metadata.add(key, key.endsWith("-bin") ? Buffer.from(value, "base64") : value);
  }
  return metadata;
}

function run(client, step) {
  return new Promise((resolve) => {
    const method = methodOf(step.path);
    const result = { replies: [], code: -1, message: "", initial: [], trailing: [] };
    const options = { deadline: new Date(Date.now() + step.timeout * 1000) };
    const common = [method.path, method.requestSerialize, method.responseDeserialize];
    const metadata = metadataOf(step);
    const requests = [...step.requests];
    let call;
    const keep = (reply) => {
      result.replies.push(reply);
      if (step.cancel_after === result.replies.length) call.cancel();
    };
    const answered = (error, reply) => { if (!error) keep(reply); };
    if (step.kind === "unary") {
      call = client.makeUnaryRequest(...common, requests[0], metadata, options, answered);
    } else if (step.kind === "client") {
      call = client.makeClientStreamRequest(...common, metadata, options, answered);
    } else if (step.kind === "server") {
      call = client.makeServerStreamRequest(...common, requests[0], metadata, options);
    } else {
      call = client.makeBidiStreamRequest(...common, metadata, options);
    }
    const writeNext = () => (requests.length ? call.write(requests.shift()) : call.end());
    if (step.kind === "server" || step.kind === "bidi") {
      call.on("data", (reply) => {
        keep(reply);
        if (step.lockstep) writeNext();
      });
      call.on("error", () => {});
    }
    call.on("metadata", (came) => { result.initial = pairs(came); });
    call.on("status", (status) => {
      result.code = status.code;
      result.message = status.details;
      result.trailing = pairs(status.metadata);
      // Unary answers are told after the status.
      setImmediate(() => resolve(result));
    });
    if (step.kind === "client" || step.kind === "bidi") {
      if (step.lockstep) {
        writeNext();
      } else {
        for (const request of requests) call.write(request);
        call.end();
      }
    }
  });
}

function credentials() {
  if (tls.length === 0) return grpc.credentials.createInsecure();
  const [authority, certificate, key] = tls.map((name) => fs.readFileSync(name));
  return grpc.credentials.createSsl(authority, key || null, certificate || null);
}

async function main() {
  const client = new grpc.Client(address, credentials(), {
    "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1,
  });
  const results = {};
  for (const step of JSON.parse(fs.readFileSync(stepsFile))) results[step.name] = await run(client, step);
  client.close();
  fs.writeFileSync(resultsFile, JSON.stringify(results));
}

main();
