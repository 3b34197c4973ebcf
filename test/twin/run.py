"""Runs the suite on random histories and holds every answer against the twin.

    SEED=number test/twin/run.py BINARY

One comparison is one line, row or object of an answer that has to be the same in every field.
It exits 1 when any differs, and when fewer than FLOOR were made."""

import csv
import decimal
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time

import answers
import wire
from answers import Twin, number, parse
from fold import Rule, partition_of
from history import BEYOND, LARGEST, Wallet, World
from suite import Failed, Suite, Watcher, wait

FLOOR = 20_000
EPOCHS = 3  # each but the first begins with another rule
HOUR = 3_600_000  # in milliseconds
SHOWN = 5  # differences of a kind that are printed


class Compared:
    def __init__(self):
        self.counts, self.differences = {}, []

    def same(self, what, where, got, want):
        self.counts[what] = self.counts.get(what, 0) + 1
        if got != want:
            self.differences.append((what, where, got, want))

    def total(self):
        return sum(self.counts.values())


def now():
    return time.time_ns() // 10**6


def differs(got, want, path=""):
    """Where two values of JSON differ, at most a few places."""
    if isinstance(got, dict) and isinstance(want, dict):
        return [x for k in sorted({*got, *want}) for x in differs(got.get(k, "(missing)"), want.get(k, "(missing)"), f"{path}.{k}")]
    if isinstance(got, (list, tuple)) and isinstance(want, (list, tuple)) and len(got) == len(want):
        return [x for i, (g, w) in enumerate(zip(got, want)) for x in differs(g, w, f"{path}[{i}]")]
    return [] if got == want else [f"{path or '.'}: got {got!r:.300}, want {want!r:.300}"]


class Run:
    def __init__(self, suite, rng):
        self.suite, self.rng, self.compared = suite, rng, Compared()
        self.world = World(rng, suite.partitions, now())
        self.rules = []  # (rule, first offsets of deposit by partition)
        self.logs = {}  # what was read of each topic, by partition
        # To be held against the log: what was answered to deposits, what a check showed right
        # after one, what -service=flag printed and was to do.
        self.posts, self.reads, self.operated = [], [], []

    # What happens.

    def epoch(self, n):
        s, w = self.suite, self.world
        longer = n == EPOCHS - 1 and self.rng.random() < 0.5
        if n:
            w.change_rule(longer)
        s.use(wire.money(w.rule.threshold), w.rule.period)
        if n:
            s.stop("threshold", "api")
        log = s.log()
        self.rules.append((w.rule, log.ends("deposit", s.partitions)))
        if not n:
            s.start("balance", "flagger")
            w.settle()
        s.start("threshold", "api")
        if not n or longer:  # the API's clock makes no pause, so its wallets are others after one
            self.clients = [Wallet(w, "client", []) for _ in range(8)] + [x for x in w.wallets if x.habit == "mixed" and not longer]
        self.api, self.live = s.api(), Watcher(s.ports["api"])
        self.append(log, "deposit", w.deposits(1 / EPOCHS, log.ends("deposit", s.partitions)))
        self.append(log, "flag_wallet", w.operators(30, log.ends("deposit", s.partitions)))
        self.repeat_crossings(log)
        self.settled(log)
        self.slowly(log)
        self.stream()
        self.operate()
        self.settled(log)
        self.compare_api()
        self.compare_live()
        if n == EPOCHS - 1:
            self.compare_log(log)
            self.compare_commands(log)
        self.api.close()
        self.live.close()
        log.close()

    def append(self, log, topic, logs):
        """Appends records to their partitions in batches of any size, mixed."""
        places = [0] * len(logs)
        while True:
            left = [p for p, at in enumerate(places) if at < len(logs[p])]
            if not left:
                return
            p = self.rng.choice(left)
            batch = logs[p][places[p]:places[p] + self.rng.choice([1, 3, 20, 200])]
            log.append(topic, p, batch)
            places[p] += len(batch)

    def read(self, log, topic):
        """A topic, whole; what was read before is not read again."""
        known = self.logs.setdefault(topic, [[] for _ in range(self.suite.partitions)])
        for p, records in enumerate(known):
            records += log.read(topic, p, records[-1].offset + 1 if records else 0, log.end(topic, p))
        return known

    def repeat_crossings(self, log):
        """Some crossings stand on flag_wallet twice, as after a crash."""
        for p, records in enumerate(self.read(log, "flag_wallet")):
            again = [(r.time, r.key, r.value, r.headers) for r in records if self.rng.random() < 0.05]
            if again:
                log.append("flag_wallet", p, again)

    def settled(self, log):
        """Waits until each group has passed the ends of what it reads, and the API shows it:
        of each wallet the last deposit, by its position, and what operators did."""
        self.twin = twin = Twin(self.read(log, "deposit"), self.suite.partitions, self.rules)
        for w in self.order(twin.by_wallet):
            last = twin.by_wallet[w][-1].deposit.position()
            wait(f"check {w} at {last}", lambda: self.api.get("/api/check/" + w, headers={"X-Deposit-Position": last})[0] == 200)
        wait("lag of every group is 0", self.quiet)
        twin.hear(self.read(log, "flag_wallet"))
        for w in self.order(w for w, events in twin.events.items() if any(e.kind != "crossing" for _, e in events)):
            flag = twin.flag(w)
            want = number(flag.removals), flag.by_operator
            end = time.monotonic() + 10
            while time.monotonic() < end:
                shown = self.api.get("/api/wallets/" + w)[1]["flag"]
                if want == (shown["removals"], shown["op_raised"]):
                    break
                time.sleep(0.02)

    def quiet(self):
        state = self.live.state()
        return state and all(g["lag"] and not any(g["lag"]) for g in state["groups"])

    def order(self, names):
        names = sorted(names)
        self.rng.shuffle(names)
        return names

    # Clients.

    def post(self, wallet, text, amount, key):
        """One deposit, answered; then what a check shows that waits for it."""
        headers, body = {}, f'{{"wallet_id":"{wallet.name}","amount":{text}}}'
        if key:
            headers["Idempotency-Key"] = key
        began = now()
        status, got, answer = self.api.call("POST", "/api/deposit", body, headers)
        position = got["X-Deposit-Position"]
        self.posts.append((wallet.name, amount, key, began, now(), status, position, got["Idempotency-Replayed"], None if status == 422 else parse(answer)))
        if position and status == 200:
            self.reads.append((wallet.name, position, *self.api.get("/api/check/" + wallet.name, headers={"X-Deposit-Position": position})))
        return status == 200 and not got["Idempotency-Replayed"]

    def draw(self, wallet):
        """An amount as a client writes it, what it is, and a key or none."""
        r = self.rng
        if wallet.keys and r.random() < 0.2:
            key, amount = r.choice(wallet.keys[-30:])
            amount = min(amount + (r.random() < 0.3), LARGEST)
        else:
            key, amount = "", self.world.amount(wallet)
            if r.random() < 0.3:
                key = f"k{r.getrandbits(60)}"
                wallet.keys.append((key, amount))
        plain = wire.money(amount)
        forms = [plain, f'"{plain}"'] + ([f"{amount}e-9"] if r.random() < 0.5 else [])
        return r.choice(forms), amount, key

    def slowly(self, log):
        """Deposits over HTTP, few at a time: each must be told by the live stream before the
        next ones come."""
        self.flag_ends, self.deposit_ends = (log.ends(topic, self.suite.partitions) for topic in ("flag_wallet", "deposit"))
        # The stream samples when much was told just now.
        wait("a quiet tick", lambda: len(self.live.ticks()) > 2 and len({t["total"] for t in self.live.ticks()[-3:]}) == 1)
        self.first_tick, began, self.slow = len(self.live.ticks()), self.live.ticks()[-1]["total"], []
        for _ in range(15):
            for _ in range(10):
                wallet = self.rng.choice(self.clients)
                if self.post(wallet, *self.draw(wallet)):
                    self.slow.append((wallet.name, self.posts[-1][6]))
            end = time.monotonic() + 5
            while sum(len(t["deposits"]) for t in self.live.ticks()[self.first_tick:]) < len(self.slow) and time.monotonic() < end:
                time.sleep(0.01)
        self.last_tick = len(self.live.ticks())
        self.compared.same("live", "total", self.live.ticks()[-1]["total"] - began, len(self.slow))
        self.slow_flags = log.ends("flag_wallet", self.suite.partitions)

    def stream(self):
        """Deposits as lines of one request, some of them bad."""
        lines, sent = [], []
        for _ in range(120):
            wallet = self.rng.choice(self.clients)
            text, amount, key = self.draw(wallet)
            bad = self.rng.random() < 0.05
            lines.append(f'{{"wallet_id":"{wallet.name}","amount":{"0" if bad else text}' + (f',"idempotency_key":{json.dumps(key)}' if key else "") + "}")
            sent.append((wallet.name, None if bad else amount, key))
        began = now()
        status, _, body = self.api.call("POST", "/api/deposits", "\n".join(lines), {"Content-Type": "application/x-ndjson"})
        got = [parse(line) for line in body.splitlines()]
        self.compared.same("stream", "status and lines", (status, len(got)), (200, len(sent)))
        got.sort(key=lambda line: int(line["line"][1:]))
        for i, ((wallet, amount, key), line) in enumerate(zip(sent, got)):
            code = line.get("code")
            if amount is None:
                self.compared.same("stream", lines[i], (line["line"], code, line.get("message")), (number(i + 1), "#400", "amount must be greater than 0"))
                continue
            replayed = "true" if line.get("replayed") else None
            self.posts.append((wallet, amount, key, began, now(), 200 if code is None else int(code[1:]), line.get("position"), replayed, None))

    def operate(self):
        """The operator's own command."""
        for _ in range(3):
            wallet = self.rng.choice([w for w in self.world.wallets if w.habit not in BEYOND] + self.clients)
            remove = self.rng.random() < 0.5
            got = self.suite.command("flag", "-wallet", wallet.name, *(["-remove"] if remove else []))
            self.operated.append((wallet.name, "removal" if remove else "raise", got))

    # What is compared.

    def compare_api(self):
        twin, c = self.twin, self.compared
        for w in self.order({*twin.by_wallet, *twin.events}):
            beyond = twin.beyond(w)
            status, got = self.api.get("/api/check/" + w)
            want = twin.check(w)
            if beyond:
                got, want = forgive(beyond, got, want)
            c.same("check", w, (status, got), (200, want))
            began = now()
            status, got = self.api.get("/api/wallets/" + w)
            want = twin.wallet(w, began)
            for at in range(began, now() + 1):  # the window is that of the moment of the answer
                if got["window"] == want["window"]:
                    break
                want["window"] = answers.standing(twin.applied(w), twin.rule_of(twin.applied(w)[-1]), at) if twin.applied(w) else want["window"]
                if not twin.applied(w):
                    want["window"] = answers.standing([], twin.rules[-1][0], at)
            if not twin.held(w, began):
                got.pop("window"), want.pop("window")
            if beyond:
                for x in (got, want):
                    x.pop("window", 0), x.pop("flag")
            c.same("wallet", w, (status, got), (200, want))
        self.compare_posts()
        self.compare_operated()
        for limit in (None, 1, self.rng.randint(2, 9), 500):
            self.compare_flags(limit)

    def compare_operated(self):
        for wallet, kind, printed in self.operated:
            position = re.search(r"flag_wallet (\d+):(\d+)", printed)
            offset = int(position[2]) if position else -1
            flag = self.twin.flag(wallet, lambda record, _, __: record.offset <= offset)
            done = [e.kind for r, e in self.twin.events[wallet] if r.offset == offset]
            state = "flagged" if flag.raised() else "not flagged"
            want = f"{wallet}: {state} (flag_wallet {partition_of(wallet, self.suite.partitions)}:{offset})\n"
            self.compared.same("flag", printed, (printed, done), (want, [kind]))
        self.operated = []

    def compare_flags(self, limit):
        twin, query, listed = self.twin, {} if limit is None else {"limit": limit}, []
        while True:
            status, page = self.api.get("/api/flags", query)
            full = len(page["flags"]) == (limit or 50)
            self.compared.same("page", f"/api/flags {query}", (status, full or page["next_cursor"] is None), (200, True))
            listed += page["flags"]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        exact = lambda w: not twin.beyond(w)
        want = [twin.listed(w) for w in twin.flags() if exact(w)]
        got = [x for x in listed if exact(x["wallet_id"])]
        self.compared.same("flags", f"limit {limit}: wallets in order", [x["wallet_id"] for x in got], [x["wallet_id"] for x in want])
        got = {x["wallet_id"]: x for x in got}
        for x in want:
            self.compared.same("flags", x["wallet_id"], got.get(x["wallet_id"]), x)

    def compare_posts(self):
        """Each answer against what the log holds at its position, and what was read after it."""
        twin, c = self.twin, self.compared
        for wallet, amount, key, began, ended, status, position, replayed, answer in self.posts:
            first = next((e.deposit for e in twin.by_wallet[wallet] if key and e.deposit.key == key and e.verdict == "applied"), None)
            if status == 422:
                c.same("post", (wallet, key), first is not None and first.amount != amount, True)
                continue
            e = twin.at.get(tuple(map(int, position.split(":")))) if position else None
            if e is None or not e.deposit:
                c.same("post", (wallet, key, position), (status, answer), (200, "a deposit in the log"))
                continue
            c.same("post", (wallet, position), (status, e.deposit.wallet, e.deposit.amount, e.deposit.key, e.verdict), (200, wallet, amount, key, "applied"))
            if answer is not None:
                c.same("post", (wallet, position), answer, {"code": "#200", "data": None, "message": "success"})
            if replayed is None:
                c.same("post", (wallet, position), began <= e.deposit.at <= ended, True)
            else:
                c.same("post", (wallet, position), (replayed, first.position()), ("true", position))
        done = {}  # a client that does one thing after another reads all that it did
        for wallet, position, status, got in self.reads:
            partition, offset = map(int, position.split(":"))
            upto = done[wallet] = max(done.get(wallet, 0), offset, self.deposit_ends[partition] - 1)
            before = lambda r, e, _: r.offset < self.flag_ends[partition] or e.kind == "crossing" and e.tip <= upto
            want = {"wallet_id": wallet, "balance": answers.amount(sum(d.amount for d in twin.applied(wallet) if d.offset <= upto)),
                    "above_threshold": twin.flag(wallet, before).raised()}
            c.same("read your write", (wallet, position), (status, got), (200, want))
        self.posts, self.reads = [], []

    def compare_live(self):
        twin, c, w = self.twin, self.compared, self.world
        about = next(data for _, name, data in self.live.events if name == "hello")
        c.same("live", "hello", (about["about"], about["tick_ms"]), ({"threshold": wire.money(w.rule.threshold), "period_ms": w.rule.period}, 250))
        applied, flags = {}, {}
        for wallet in {*twin.by_wallet, *twin.events}:
            balance = last = 0
            for d in twin.applied(wallet):
                balance, last = balance + d.amount, max(last, d.at)
                applied[wallet, wire.money(balance)] = {"amount": wire.money(d.amount), "at": last}
            told, flags[wallet] = changes(twin, wallet)
            for record, x in told:
                if self.flag_ends[record.partition] <= record.offset < self.slow_flags[record.partition]:
                    c.same("live", ("flag told once", x), [y for _, y in self.live.told("flags")].count(x), 1)
        for at, x in self.live.told("deposits"):
            want = applied.get((x["wallet_id"], x["balance"]))
            delay = max(0, at - x["at"])
            c.same("live deposit", x, ({"amount": x["amount"], "at": x["at"]}, 0 <= x["delay_ms"] <= delay), (want, True))
        for _, x in self.live.told("flags"):
            if not twin.beyond(x["wallet_id"]):
                c.same("live flag", x, x in flags[x["wallet_id"]], True)
        ticks = self.live.ticks()[self.first_tick:self.last_tick]
        told = [(x["wallet_id"], x["balance"]) for t in ticks for x in t["deposits"]]
        for wallet, position in self.slow:
            upto = int(position.split(":")[1])
            balance = wire.money(sum(d.amount for d in twin.applied(wallet) if d.offset <= upto))
            c.same("live", ("told once", wallet, position), told.count((wallet, balance)), 1)
        state = self.live.state()
        groups = {g["name"]: g for g in state["groups"]}
        c.same("live", "state", (state["kafka"], state["api"]), ({"state": "up"}, {"state": "up"}))
        for name, topic in (("balance", "deposit"), ("threshold", "deposit"), ("flagger", "flag_wallet")):
            want = {"state": "up", "name": name, "topic": topic, "members": 1, "lag": [0] * self.suite.partitions}
            c.same("live", name, groups[name], want)

    def compare_log(self, log):
        """flag_wallet holds every crossing, and none that is not one."""
        twin, c, told = self.twin, self.compared, {}
        for records in self.read(log, "flag_wallet"):
            for r in records:
                crossing = read_crossing(r)
                if crossing and not twin.beyond(crossing[0]):
                    told.setdefault((crossing[0], crossing[1]["offset"]), crossing[1])
        want = {(w, x.tip.offset): shown(x) for w in twin.wallets() if not twin.beyond(w) for x in twin.crossings(w)}
        for place in sorted({*told, *want}):
            c.same("crossing", place, told.get(place), want.get(place))
        beyond = [w for w in twin.wallets() if twin.beyond(w)]
        print(f"twin: {len(twin.wallets())} wallets, {len(beyond)} beyond what is promised of windows")
        c.same("crossing", f"most wallets are within: not {beyond}", 4 * len(beyond) < len(twin.wallets()), True)

    def compare_commands(self, log):
        twin, r = self.twin, self.rng
        wallets = {*twin.by_wallet, *(e.record.key.decode() for x in twin.entries for e in x if e.record.key and e.record.key.decode() in self.world.names)}
        for w in self.order(wallets):
            self.compare_statement(w, None)
            times = [d.at for d in twin.applied(w)]
            for _ in range(2 if times else 0):
                self.compare_statement(w, r.choice(times) + r.choice([0, 0, -1, 1, r.randint(-10**5, 10**5)]))
        self.compare_whatif(None, None)
        times = sorted(d.at for w in twin.wallets() for d in twin.applied(w))
        for _ in range(3):
            a, b = sorted(r.sample(times, 2))
            start, end = (decimal.Decimal(t) + r.choice([0, 0, decimal.Decimal("0.1"), decimal.Decimal("-0.000001")]) for t in (a, b + 1))
            self.compare_whatif(*r.choice([(start, end), (start, None), (None, end)]))
        self.compare_letters(log)

    def compare_statement(self, wallet, at):
        r = self.rng
        when, counted = [], at
        if at is not None:
            fraction = r.choice(["", "", "000001", "999"])
            when = ["-at", r.choice([str, str.lower])(wire.clock(at)[:-1] + fraction + "Z")]
        lines, end = self.twin.statement(wallet, counted)
        doubtful = self.twin.beyond(wallet, self.rules[-1][0]) or self.twin.beyond(wallet)
        where = f"-wallet {wallet} {' '.join(when)}"
        if r.random() < 0.1:
            rows = list(csv.DictReader(io.StringIO(self.suite.command("statement", "-wallet", wallet, "-csv", *when))))
            got = [{k: v for k, v in row.items() if v} | {"crosses": bool(row["crosses"])} for row in rows]
        else:
            *got, closing = map(parse, self.suite.command("statement", "-wallet", wallet, "-json", *when).splitlines())
            closing = closing["statement"]
            closing.pop("records"), closing.pop("seconds")
            if doubtful:
                for x in (closing, end):
                    x.pop("flagged"), x.pop("last_crossing", 0)
            self.compared.same("statement end", where, closing, end)
        self.compared.same("statement", where, len(got), len(lines))
        home = f"{partition_of(wallet, self.suite.partitions)}:"
        stray = lambda line: (not line["position"].startswith(home), line["position"] if not line["position"].startswith(home) else "")
        got.sort(key=stray), lines.sort(key=stray)  # those on other partitions come last, in any order
        for g, want in zip(got, lines):
            if "reason" in g and want.get("reason", "?") in g["reason"]:
                g["reason"] = want["reason"]
            if doubtful:
                for x in (g, want):
                    x.pop("window", 0), x.pop("crosses")
            self.compared.same("statement", (where, want["position"]), g, want)

    def compare_whatif(self, start, end):
        r, now = self.rng, self.rules[-1][0]
        rules = [now]
        for _ in range(4):
            rule = Rule(max(1, r.choice([now.threshold // 3, now.threshold * 2, now.threshold * 4 // 5, now.threshold // 20])),
                        r.choice([now.period, now.period // 3 + 1, now.period * 2, now.period * 7, 1]))
            if rule not in rules and rule.threshold <= LARGEST:
                rules.append(rule)
        args = [x for rule in rules[1:] for x in ("-rule", f"{wire.money(rule.threshold)}/{rule.period}ms")]
        for name, t in (("-from", start), ("-to", end)):
            if t is not None:
                ms, rest = divmod(t, 1)
                args += [name, wire.clock(int(ms))[:-1] + f"{rest:.6f}"[2:] + r.choice("zZ")]
        got = parse(self.suite.command("whatif", "-json", *args))
        want, doubtful = self.twin.whatif(rules, start, end)
        heads = [{k: v for k, v in x.items() if k not in ("rules", "seconds")} for x in (got, want)]
        self.compared.same("whatif", args, *heads)
        for g, w, doubt in zip(got["rules"], want["rules"], doubtful):
            where = f"{' '.join(args)}: {g['threshold']}/{g['period']}"
            rows = g.pop("wallets")
            count = lambda *kinds: number(sum(x["change"] in kinds for x in rows))
            self.compared.same("whatif", where, (g["flagged"], g["new"], g["gone"]), (count("same", "new"), count("new"), count("gone")))
            expected = [x for x in w.pop("wallets") if x["wallet"] not in doubt]
            rows = [x for x in rows if x["wallet"] not in doubt]
            if not doubt:
                self.compared.same("whatif", where, g, w)
            self.compared.same("whatif", where, [x["wallet"] for x in rows], [x["wallet"] for x in expected])
            rows = {x["wallet"]: x for x in rows}
            for x in expected:
                self.compared.same("whatif", (where, x["wallet"]), rows.get(x["wallet"]), x)

    def compare_letters(self, log):
        topics = "deposit_dead_letter", "flag_wallet_dead_letter"
        want, seen = self.twin.letters(), []
        wait("each dead letter", lambda: sum(len(x) for t in topics for x in self.read(log, t)) >= len(want))
        lying = {(t, f"{r.partition}:{r.offset}"): r for t in topics for records in self.read(log, t) for r in records}
        for line in self.suite.command("deadletter", "-json").splitlines():
            got = parse(line)
            source = got["source_topic"], got["source_position"]
            seen.append(source)
            record, reason = want.get(source, (None, "?"))
            self.compared.same("letter", (source, got["reason"]), record is not None and reason in got["reason"], True)
            if record is None:
                continue
            copy = lying.get((got["topic"], got.pop("position")))
            got.pop("reason")
            self.compared.same("letter", source, copy and (copy.key, copy.value, copy.headers[:len(record.headers)]), (record.key, record.value, record.headers))
            expected = answers.letter(source[0], record)
            if copy and record.time > self.world.now + HOUR:  # ahead of its letter by more than brokers take
                self.compared.same("letter", (source, "time"), copy.time == record.time or self.world.now <= copy.time <= now(), True)
                expected["time"] = wire.clock(copy.time)
            for x in (got, expected):  # years that have five digits are nobody's business
                for f in x["fields"]:
                    f["text"] = re.sub(r"^(\d{15,}) \(.*", r"\1", f["text"])
            self.compared.same("letter", source, got, expected)
        self.compared.same("letter", "one of each", sorted(seen), sorted(want))


def forgive(beyond, got, want):
    """What is promised of a wallet with more deposits than are kept apart: a flag may be
    raised that need not be. Of one whose deposits came too late: its balance."""
    if beyond == "late" or got["above_threshold"]:
        want = want | {"above_threshold": got["above_threshold"]}
    return got, want


def changes(twin, wallet):
    """What the live stream tells of a wallet's flag: each change, with the event that made it,
    and all that it may tell. The rows of events that come in one breath may be written as one,
    so it may be a change from any state to a later one."""
    changed, may, flag, before = [], [], answers.Flag(twin.crossings(wallet)), {False}
    for record, event in twin.events.get(wallet, []):
        was = flag.raised()
        flag.apply(event)
        x = {"wallet_id": wallet, "raised": flag.raised(), "at": flag.removed_at}
        if flag.stands():
            x |= {"at": flag.shown.tip.at, "total": wire.money(flag.shown.total)}
        elif flag.raised():
            x["at"] = flag.op_at
        if flag.raised() != was:
            changed.append((record, x))
        if before != {flag.raised()}:
            may.append(x)
        before.add(flag.raised())
    return changed, may


def read_crossing(record):
    """A crossing as it stands on flag_wallet: its wallet, and all that it says."""
    try:
        got = wire.message(record.value or b"")
        body = wire.message(wire.last(got, 2, wire.BYTES, b""))
        evidence = wire.message(wire.last(body, 1, wire.BYTES, b""))
        parts = wire.message(wire.last(body, 2, wire.BYTES, b""))
    except wire.Malformed:
        return None
    if not evidence:
        return None
    take = lambda n: wire.last(evidence, n, wire.VARINT, 0)
    rule = wire.message(wire.last(evidence, 8, wire.BYTES, b""))
    said = {"position": (take(1), take(2)), "offset": take(2), "window": (take(3), take(4)), "total": take(5) * wire.NANOS + take(6), "deposits": take(7),
            "rule": (wire.last(rule, 1, wire.VARINT, 0) * wire.NANOS + wire.last(rule, 2, wire.VARINT, 0), wire.last(rule, 3, wire.VARINT, 0))}
    columns = {n: unpack(wire.last(parts, n, wire.BYTES, b"")) for n in range(1, 7)}
    size = len(columns[1])
    times, offsets, time, offset = [], [], 0, 0
    for i in range(size):
        time += columns[1][i]
        offset += wire.signed(columns[6][i] >> 1 ^ -(columns[6][i] & 1))
        times.append(time), offsets.append(offset)
    nanos = columns[4] or [0] * size
    said["parts"] = [(times[i], offsets[i], columns[3][i] * wire.NANOS + nanos[i]) for i in range(size)]
    return record.key.decode(), said


def unpack(data):
    out, at = [], 0
    while at < len(data):
        n, at = wire.varint(data, at)
        out.append(n)
    return out


def shown(c):
    return {"position": (c.tip.partition, c.tip.offset), "offset": c.tip.offset, "window": (c.start, c.end), "total": c.total, "deposits": c.count,
            "rule": tuple(c.rule), "parts": [(d.at, d.offset, d.amount) for d in c.parts]}


def main():
    seed = os.environ.get("SEED") or str(random.SystemRandom().getrandbits(32))
    print(f"twin: SEED={seed}", flush=True)
    rng, began = random.Random(seed), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end what was started
    directory = tempfile.mkdtemp(prefix="coinbit-twin-")
    suite = Suite(os.path.realpath(sys.argv[1]), directory, rng.randint(1, 8))
    run, whole = Run(suite, rng), False
    try:
        suite.start("kafka")
        suite.command("topics")
        for n in range(EPOCHS):
            run.epoch(n)
        suite.stop("api", "balance", "threshold", "flagger")
        suite.stop("kafka")
        whole = True
    except Failed as e:
        print("twin:", e)
    finally:
        suite.kill()
        if not whole:
            suite.tell()
        shutil.rmtree(directory, ignore_errors=True)
    c = run.compared
    shown = {}
    for what, where, got, want in c.differences:
        shown[what] = shown.get(what, 0) + 1
        if shown[what] > SHOWN:
            continue
        print(f"{what} {where!s:.300}:", *differs(got, want)[:6], sep="\n  ")
    print("twin:", ", ".join(f"{n} {what}" for what, n in sorted(c.counts.items())))
    print(f"twin: SEED={seed}: {c.total()} comparisons in {time.monotonic() - began:.0f} s, {len(c.differences)} differ (floor {FLOOR})")
    sys.exit(not whole or bool(c.differences) or c.total() < FLOOR)


if __name__ == "__main__":
    main()
