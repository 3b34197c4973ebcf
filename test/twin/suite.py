"""The suite as processes on its embedded broker, and what a client of it needs."""

import http.client
import json
import os
import socket
import subprocess
import threading
import time
import urllib.parse

from answers import parse
from log import Log

DEADLINE = 60


class Failed(Exception):
    """The run cannot go on."""


def wait(what, ready):
    """Asks until ready answers something true, and gives it back."""
    end = time.monotonic() + DEADLINE
    while True:
        got = ready()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {DEADLINE} s")
        time.sleep(0.02)


def free_ports(n):
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


class Suite:
    """Processes of one binary on one broker. stop ends what runs."""

    def __init__(self, binary, directory, partitions):
        self.binary, self.directory, self.partitions = binary, directory, partitions
        names = ["kafka", "api", "balance", "threshold", "flagger"]
        self.ports = dict(zip(names, free_ports(len(names))))
        self.running = {}
        self.rule = None
        own = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "GORACE")}
        self.env = own | {"BROKER": f"127.0.0.1:{self.ports['kafka']}", "PARTITIONS": str(partitions), "STATE_MEMORY": "32",
                          "STATE_DIR": directory + "/state", "DATA_DIR": directory + "/kafka"}

    def use(self, amount, period_ms):
        """The rule in force for what is started from now on."""
        self.env |= {"THRESHOLD_AMOUNT": amount, "ROLLING_PERIOD": f"{period_ms}ms"}

    def start(self, *names):
        for name in names:
            port = {"api": "PORT", "kafka": "UNUSED"}.get(name, "ADMIN_PORT")
            env = self.env | {port: str(self.ports[name])} if port != "UNUSED" else self.env
            log = open(f"{self.directory}/{name}.log", "ab")
            self.running[name] = subprocess.Popen([self.binary, "-service=" + name], env=env, cwd=self.directory,
                                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            log.close()
            wait(name + " is up", lambda: self.ready(name))

    def ready(self, name):
        if self.running[name].poll() is not None:
            raise Failed(f"{name} ended with {self.running[name].returncode}")
        try:
            if name == "kafka":
                socket.create_connection(("127.0.0.1", self.ports[name]), 1).close()
                return True
            c = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=5)
            c.request("GET", "/readyz")
            status = c.getresponse().status
            c.close()
            return status == 200
        except OSError:
            return False

    def stop(self, *names):
        """Ends services as their supervisor would; what does not end in time is killed, and said."""
        ended = [(name, self.running.pop(name)) for name in names if name in self.running]
        for _, p in ended:
            p.terminate()
        for name, p in ended:
            try:
                code = p.wait(15)
            except subprocess.TimeoutExpired:
                p.kill()
                code = p.wait()
            if code:
                raise Failed(f"{name} ended with {code}")

    def kill(self):
        for p in self.running.values():
            p.kill()
            p.wait()

    def tell(self):
        """The end of each log."""
        for name in self.ports:
            if os.path.exists(f"{self.directory}/{name}.log"):
                with open(f"{self.directory}/{name}.log", errors="replace") as log:
                    print(f"--- {name}", *(line[:500].rstrip() for line in log.readlines()[-5:]), sep="\n")

    def command(self, service, *args):
        """What a command prints, with its exit code."""
        p = subprocess.run([self.binary, "-service=" + service, *args], env=self.env, cwd=self.directory, stdin=subprocess.DEVNULL,
                           capture_output=True, timeout=DEADLINE)
        if p.returncode:
            raise Failed(f"-service={service} {' '.join(args)} ended with {p.returncode}: {p.stderr.decode(errors='replace')[-2000:]}")
        return p.stdout.decode()

    def log(self):
        return Log("127.0.0.1", self.ports["kafka"])

    def api(self):
        return Api(self.ports["api"])


class Api:
    """A client of the API, on a connection that it keeps."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.used = 0

    def call(self, method, path, body=None, headers=None):
        if time.monotonic() - self.used > 1:  # the server ends what is idle
            self.connection.close()
        self.connection.request(method, path, body, headers or {})
        r = self.connection.getresponse()
        answer = r.status, r.headers, r.read()
        self.used = time.monotonic()
        return answer

    def get(self, path, query=None, headers=None):
        if query:
            path += "?" + urllib.parse.urlencode(query)
        status, _, body = self.call("GET", path, headers=headers)
        return status, parse(body)

    def close(self):
        self.connection.close()


class Watcher:
    """Takes down what /api/live tells, until it is closed."""

    def __init__(self, port):
        self.events = []  # (time of arrival in ms, name, data)
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.socket.sendall(b"GET /api/live HTTP/1.0\r\nHost: localhost\r\n\r\n")
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        name = ""
        try:
            for line in self.socket.makefile("rb"):
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    self.events.append((time.time_ns() // 10**6, name, json.loads(line[6:])))
        except OSError:
            pass  # closed, or the API is gone: what it did not tell is missed

    def told(self, what):
        """All deposits or flags of ticks so far, oldest first, with the time of arrival."""
        ticks = [(at, data) for at, name, data in list(self.events) if name == "tick"]
        return [(at, x) for at, data in ticks for x in reversed(data[what])]

    def ticks(self):
        return [data for _, name, data in list(self.events) if name == "tick"]

    def state(self):
        """The latest state that was told, None before the first."""
        return next((data for _, name, data in reversed(list(self.events)) if name == "state"), None)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()
