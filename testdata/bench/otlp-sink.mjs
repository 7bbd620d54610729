// Answers every gRPC call with an empty message, so that a profiler that sends OTLP can run without
// a real server.
//
//   node testdata/bench/otlp-sink.mjs PORT
import { createServer } from "node:http2";

const emptyMessage = Buffer.alloc(5); // Not compressed, of length 0.

const server = createServer();
server.on("stream", (stream) => {
  stream.on("error", () => {});
  stream.on("data", () => {});
  stream.on("end", () => {
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(emptyMessage);
  });
});
server.on("sessionError", () => {});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening"));
