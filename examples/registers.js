// Replicated registers in Node.js, without a leader: the algorithm of Attiya, Bar-Noy and Dolev (1995).
//
//   node registers.js NODE DATA_DIR PEER_ADDRESS HTTP_ADDRESS NODE=ADDRESS,NODE=ADDRESS,... [quick-reads]
//
// A write asks a majority for the newest time of the register, then gives a majority a newer one.  A read asks a
// majority for the newest value, and gives it to a majority before it answers: without that, or with `quick-reads`,
// which answers from the node's own copy, a later read may return an older value.
"use strict";
const fs = require("fs");
const http = require("http");
const path = require("path");

const [node, dataDir, peerAddress, httpAddress, peerList, bug] = process.argv.slice(2);
const members = peerList.split(",").map((entry) => entry.split("="));
const peers = members.filter(([number]) => number !== node).map(([, address]) => address);
const majority = Math.floor(members.length / 2) + 1;
const file = path.join(dataDir, "registers.json");
const registers = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)) : {};

const held = (key) => registers[key] || { time: 0, node: 0, value: null };
const newer = (one, other) => (one.time !== other.time ? one.time > other.time : one.node > other.node);

// What a replica does with a message: keep what is newer, durably, and answer with what it has.
function replica({ key, cell }) {
  if (cell && newer(cell, held(key))) {
    registers[key] = cell;
    const copy = fs.openSync(`${file}.new`, "w");
    fs.writeSync(copy, JSON.stringify(registers));
    fs.fsyncSync(copy);
    fs.closeSync(copy);
    fs.renameSync(`${file}.new`, file);
  }
  return held(key);
}

function ask(address, message) {
  return new Promise((resolve, reject) => {
    const request = http.request(`http://${address}/`, { method: "POST", timeout: 500 }, (response) => {
      let text = "";
      response.on("data", (chunk) => (text += chunk));
      response.on("end", () => (response.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text))));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("no answer")));
    request.on("error", reject);
    request.end(JSON.stringify(message));
  });
}

// The newest of what a majority answers, this node included; fails when no majority does.
function newestOfMajority(message) {
  return new Promise((resolve, reject) => {
    let newest = replica(message);
    let yes = 1;
    let no = 0;
    if (yes >= majority) resolve(newest);
    for (const peer of peers) {
      ask(peer, message).then(
        (cell) => {
          if (newer(cell, newest)) newest = cell;
          if (++yes === majority) resolve(newest);
        },
        () => ++no > members.length - majority && reject(new Error("no majority answers")),
      );
    }
  });
}

async function write(key, value) {
  const { time } = await newestOfMajority({ key });
  // Two writes at once of this node must not share a time: what it has itself by now counts too.
  await newestOfMajority({ key, cell: { time: Math.max(time, held(key).time) + 1, node: Number(node), value } });
}

async function read(key) {
  if (bug === "quick-reads") return held(key).value;
  const cell = await newestOfMajority({ key });
  if (cell.time > 0) await newestOfMajority({ key, cell });
  return cell.value;
}

// GET|PUT /api/v1/kv/KEY: what the workload `kv` speaks.  No ETag: there is no compare-and-set.
async function client(method, url, headers, body) {
  if (url === "/readyz") return [200, ""];
  // Nobody leads; node 1 is named, so that faults that aim at a leader have somebody to hit.
  if (url === "/status") return [200, JSON.stringify({ leader: 1 })];
  const key = decodeURIComponent(new URL(url, "http://any").pathname.replace("/api/v1/kv/", ""));
  // A request that may be sent twice and must be done once: a promise that we cannot keep.
  if (headers["seatrial-client-id"]) return [400, JSON.stringify({ error: "no sessions here", definite: true })];
  if (method === "PUT") {
    await write(key, body);
    return [200, ""];
  }
  const value = await read(key);
  return value === null ? [404, ""] : [200, value];
}

function serve(address, answer) {
  const [host, port] = address.split(":");
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", async () => {
      let [status, text] = [503, ""];
      try {
        [status, text] = await answer(request.method, request.url, request.headers, body);
      } catch (error) {
        text = JSON.stringify({ error: error.message, definite: false });
      }
      response.writeHead(status);
      response.end(text);
    });
  });
  server.listen(Number(port), host);
}

serve(peerAddress, async (method, url, headers, body) => [200, JSON.stringify(replica(JSON.parse(body)))]);
serve(httpAddress, client);
