// The suite as processes of its own, on free ports, in a directory that goes away.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const READY = 60_000; // machines are shared
const binary = process.env.COINBIT;

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

// eventually waits until f gives something that is true, and returns it.
export async function eventually(what, f, within = READY) {
  const end = Date.now() + within;
  for (let last; ; await new Promise((next) => setTimeout(next, 50))) {
    try {
      const got = await f();
      if (got) return got;
    } catch (err) {
      last = err;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${within / 1000} s`, { cause: last });
  }
}

export class Suite {
  static async start() {
    if (!binary) throw new Error("COINBIT is not set: run make test-browser");
    const suite = new Suite();
    suite.dir = await mkdtemp(join(tmpdir(), "coinbit-browser-"));
    suite.env = {
      PATH: process.env.PATH, BROKER: `127.0.0.1:${await freePort()}`, PARTITIONS: "4",
      STATE_DIR: join(suite.dir, "state"), DATA_DIR: join(suite.dir, "kafka"),
    };
    suite.processes = new Map();
    await suite.run("kafka");
    await Promise.all(["balance", "threshold", "flagger"].map((name) => suite.run(name)));
    suite.port = await freePort();
    suite.url = `http://127.0.0.1:${suite.port}`;
    await suite.run("api", { PORT: String(suite.port) });
    return suite;
  }

  // run starts a service and waits until it is ready.
  async run(service, env = {}, name = service) {
    const port = env.PORT ?? String(await freePort());
    const child = spawn(binary, [`-service=${service}`], {
      cwd: this.dir, env: { ...this.env, ADMIN_PORT: port, ...env }, stdio: ["ignore", "ignore", "pipe"],
    });
    const process = { child, said: "", ended: once(child, "exit") };
    child.stderr.on("data", (text) => { process.said = (process.said + text).slice(-8000); });
    this.processes.set(name, process);
    // The broker has nothing that could be ready.
    const path = service === "kafka" ? "/healthz" : "/readyz";
    await eventually(`${name} is ready`, async () => {
      if (child.exitCode !== null) throw new Error(`it ended: ${process.said}`);
      return (await fetch(`http://127.0.0.1:${port}${path}`)).ok;
    });
  }

  // stop tells a service to end, and returns how it did and how long that took.
  async stop(name, signal = "SIGTERM") {
    const { child, ended } = this.processes.get(name);
    this.processes.delete(name);
    const began = Date.now();
    child.kill(signal);
    const [code] = await ended;
    return { code, took: Date.now() - began };
  }

  async end() {
    for (const name of [...this.processes.keys()].reverse()) await this.stop(name, "SIGKILL");
    await rm(this.dir, { recursive: true, force: true });
  }
}
