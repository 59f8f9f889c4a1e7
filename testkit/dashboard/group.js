// Members on a lock file, as a person would start them, and how they are asked and ended.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");
export const BINARY = process.env.SOLOIST_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "debug/soloist");
const LIMIT_MS = 20_000;

export const OUT = join(ROOT, "out/dashboard");
export const TOKEN = "s3cret";

/** A group in a folder of its own; everything of it is ended by `end`. */
export class Group {
  folder = mkdtempSync(join(tmpdir(), "soloist-dashboard-"));
  members = [];
  options = [];

  /** With another lock than a file of its own. */
  constructor(lock) {
    this.lock = lock ?? join(this.folder, "app.lock");
    writeFileSync(join(this.folder, "token"), TOKEN);
  }

  /** Starts a member that serves the page, on `port` where one is given. */
  async start(name, { port = 0, group = "orders", options = [] } = {}) {
    const words = ["run", "--lock", this.lock, "--group", group, "--name", name];
    return this.serve(name, port, words, [...options, "--", "sleep", "1000"]);
  }

  /** Starts a controller of these groups. */
  async control(name, lock, options) {
    return this.serve(name, 0, ["controller", "--lock", lock, "--lease", "4s", "--name", name], options);
  }

  async serve(name, port, words, rest) {
    const http = ["--http", `127.0.0.1:${port}`, "--http-token-file", join(this.folder, "token")];
    const child = spawn(BINARY, [...words, ...http, ...rest], { stdio: ["ignore", "ignore", "pipe"] });
    const member = new Member(name, child);
    this.members.push(member);
    await member.serves();
    return member;
  }

  async end() {
    await Promise.all(this.members.map((member) => member.end("SIGTERM")));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** One soloist process. */
class Member {
  log = "";

  constructor(name, child) {
    this.name = name;
    this.child = child;
    this.exited = once(child, "exit");
    child.stderr.setEncoding("utf8").on("data", (text) => (this.log += text));
  }

  /** Waits until it says where it serves. */
  async serves() {
    const limit = AbortSignal.timeout(LIMIT_MS);
    for (;;) {
      const said = /serving http on (127\.0\.0\.1:(\d+))/.exec(this.log);
      if (said) {
        [this.url, this.port] = [`http://${said[1]}`, Number(said[2])];
        return;
      }
      const ended = this.exited.then(() => Promise.reject(new Error(`${this.name} has ended:\n${this.log}`)));
      await Promise.race([once(this.child.stderr, "data", { signal: limit }), ended]);
    }
  }

  async ask(path) {
    return (await fetch(this.url + path, { signal: AbortSignal.timeout(LIMIT_MS) })).json();
  }

  /** Listens until the status is such. */
  async shows(what, is) {
    const answer = await fetch(`${this.url}/events`, { signal: AbortSignal.timeout(LIMIT_MS) });
    let text = "";
    for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const frames = text.split("\n\n");
      text = frames.pop();
      for (const frame of frames) {
        const data = /^data: (.*)$/m.exec(frame);
        if (data && is(JSON.parse(data[1]))) return JSON.parse(data[1]);
      }
    }
    throw new Error(`${this.name} never showed ${what}:\n${this.log}`);
  }

  /** Active, with its workload running, and knowing of so many members. */
  isActive(members = 1) {
    return this.shows("itself active", (status) =>
      status.role === "active" && status.workload.state === "running" && status.members.length >= members);
  }

  isStandbyOf(holder) {
    return this.shows(`${holder} active`, (status) => status.role === "standby" && status.holder === holder);
  }

  async end(signal) {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    await this.exited;
  }
}
