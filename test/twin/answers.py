"""What each answer of the suite must be, by the twin. Numbers of JSON are read as texts with
a # before them, so that no float comes in and a number is not taken for a string."""

import json

import wire
from fold import LATENESS, Flag, beyond, fullest, judge, partition_of, read_event, read_log, SetAside


def parse(text):
    return json.loads(text, parse_int=lambda s: "#" + s, parse_float=lambda s: "#" + s)


def number(n):
    return f"#{n}"


def amount(a):
    """An amount in an answer of the API, where it is a number."""
    return "#" + wire.money(a)


def rule_text(rule):
    return f"{wire.money(rule.threshold)}/{wire.period(rule.period)}"


class Twin:
    """The whole log, folded. rules are those in force, oldest first, each with the offsets of
    deposit from which on, by partition. What is on flag_wallet comes after by itself."""

    def __init__(self, deposits, partitions, rules):
        self.partitions, self.rules = partitions, rules
        self.records = deposits
        self.entries = [read_log(log, partitions) for log in deposits]
        self.by_wallet, self.at = {}, {}
        for log in self.entries:
            for e in log:
                self.at[e.record.partition, e.record.offset] = e
                if e.deposit:
                    self.by_wallet.setdefault(e.deposit.wallet, []).append(e)
        self.judged, self.bounds = {}, {}
        self.events, self.bad_events = {}, []

    def hear(self, events):
        """Takes flag_wallet, whole."""
        self.events, self.bad_events = {}, []
        for log in events:
            for r in log:
                try:
                    e = read_event(r, self.partitions)
                    self.events.setdefault(e.wallet, []).append((r, e))
                except SetAside as reason:
                    self.bad_events.append((r, str(reason)))

    def wallets(self):
        return sorted(self.by_wallet)

    def applied(self, wallet):
        return [e.deposit for e in self.by_wallet.get(wallet, []) if e.verdict == "applied"]

    def rule_of(self, d):
        return [rule for rule, start in self.rules if start[d.partition] <= d.offset][-1]

    def crossings(self, wallet):
        if wallet not in self.judged:
            judged = judge(self.applied(wallet), self.rule_of)
            self.judged[wallet] = [j.crossing for j in judged if j.crossing]
        return self.judged[wallet]

    def beyond(self, wallet, rule=None):
        if (wallet, rule) not in self.bounds:
            self.bounds[wallet, rule] = beyond(self.applied(wallet), lambda d: rule or self.rule_of(d))
        return self.bounds[wallet, rule]

    def held(self, wallet, now):
        """Whether a row surely holds what a window at a time needs: not if the clock of the
        origin that it heard last is ahead of it."""
        applied = self.applied(wallet)
        return not applied or now >= max(d.at for d in applied if d.origin == applied[-1].origin) - LATENESS

    def flag(self, wallet, counts=lambda record, event, crossings: True):
        crossings = self.crossings(wallet)
        flag = Flag(crossings)
        for record, event in self.events.get(wallet, []):
            if counts(record, event, flag.crossings):
                flag.apply(event)
        return flag

    # The API.

    def check(self, wallet):
        return {"wallet_id": wallet, "balance": amount(sum(d.amount for d in self.applied(wallet))),
                "above_threshold": self.flag(wallet).raised()}

    def wallet(self, wallet, now):
        applied, flag = self.applied(wallet), self.flag(wallet)
        times = [d.at for d in applied]
        evidence = summary(flag)
        if evidence:
            evidence["parts"] = [part(d) for d in flag.parts]
        rule = self.rule_of(applied[-1]) if applied else self.rules[-1][0]
        return {
            "wallet_id": wallet, "balance": amount(sum(d.amount for d in applied)), "deposits": number(len(applied)),
            "first_deposit_at": wire.clock(min(times)) if times else None, "last_deposit_at": wire.clock(max(times)) if times else None,
            "flag": {**raised(flag), "evidence": evidence, "removals": number(flag.removals),
                     "last_removal_at": wire.clock(flag.removed_at) if flag.removals else None},
            "window": standing(applied, rule, now),
        }

    def listed(self, wallet):
        flag = self.flag(wallet)
        return {"wallet_id": wallet, **raised(flag), "evidence": summary(flag)}

    def flags(self):
        """The flagged wallets, newest first."""
        flags = {w: self.flag(w) for w in {*self.by_wallet, *self.events}}
        return sorted((w for w, f in flags.items() if f.raised()), key=lambda w: (-flags[w].raised_at(), w))

    # The commands.

    def statement(self, wallet, at):
        """The lines of -service=statement -json, without what tells of effort; at is None or
        the last millisecond that counts."""
        rule, lines, balance, later = self.rules[-1][0], [], 0, 0
        home = partition_of(wallet, self.partitions)
        own = [e for p in (home, *(p for p in range(self.partitions) if p != home)) for e in self.entries[p] if e.record.key == wallet.encode()]
        counted = [e.deposit for e in own if e.verdict == "applied" and (at is None or e.deposit.at <= at)]
        judged = dict(zip((d.offset for d in counted), judge(counted, lambda d: rule)))
        for e in own:
            time = e.deposit.at if e.deposit else e.record.time
            if at is not None and time > at:
                later += 1
                continue
            line = {"time": wire.clock(time), "position": f"{e.record.partition}:{e.record.offset}", "verdict": e.verdict, "crosses": False}
            if e.deposit:
                line["amount"] = wire.money(e.deposit.amount)
            else:
                line["reason"] = e.reason
            if e.verdict == "applied":
                j = judged[e.deposit.offset]
                balance += e.deposit.amount
                line |= {"window": wire.money(j.window), "crosses": j.crossing is not None}
            line["balance"] = wire.money(balance)
            lines.append(line)

        def counts(_, event, crossings):
            if event.kind == "crossing":
                return event.tip in crossings and (at is None or crossings[event.tip].end <= at)
            return at is None or event.at <= at
        flag = self.flag(wallet, counts)
        end = {"wallet": wallet, "threshold": wire.money(rule.threshold), "period": wire.period(rule.period), "balance": wire.money(balance),
               "deposits": number(len(counted)), "later": number(later), "flagged": flag.raised(), "flagged_by_operator": flag.by_operator,
               "removals": number(flag.removals)}
        if at is not None:
            end["at"] = wire.clock(at)
        if flag.removals:
            end["last_removal"] = wire.clock(flag.removed_at)
        if flag.shown:
            c = flag.shown
            end["last_crossing"] = {"threshold": wire.money(c.rule.threshold), "period": wire.period(c.rule.period), **window(c)}
        return lines, end

    def whatif(self, rules, start, end):
        """The answer of -service=whatif -json, without what tells of effort: start and end are
        None or times in milliseconds, with decimals. Then the wallets, for each rule, whose
        windows are not promised under it or the one in force."""
        judged = {w: [d for d in self.applied(w) if (start is None or d.at >= start) and (end is None or d.at < end)] for w in self.wallets()}
        judged = {w: ds for w, ds in judged.items() if ds}
        times = [d.at for ds in judged.values() for d in ds]
        answer = {"records": number(sum(map(len, self.records))), "deposits": number(len(times)), "wallets": number(len(judged)),
                  "set_aside": number(sum(e.verdict == "set_aside" for log in self.entries for e in log)), "rules": []}
        if times:
            answer |= {"first_at": wire.clock(min(times)), "last_at": wire.clock(max(times))}
        doubtful, first = [], {}
        for rule in rules:
            flags = {}
            for w, ds in judged.items():
                crossing = next((j.crossing for j in judge(ds, lambda d: rule) if j.crossing), None)
                if crossing:
                    flags[w] = crossing
            first = first or {"": flags}
            in_force = first[""]
            rows = [(c, "same" if w in in_force else "new") for w, c in flags.items()]
            gone = [(c, "gone") for w, c in in_force.items() if w not in flags]
            order = lambda row: (row[0].tip.at, row[0].tip.wallet)
            answer["rules"].append({
                "threshold": wire.money(rule.threshold), "period": wire.period(rule.period), "in_force": rule is rules[0],
                "flagged": number(len(flags)), "new": number(sum(change == "new" for _, change in rows)), "gone": number(len(gone)),
                "wallets": [{"wallet": c.tip.wallet, "change": change, "at": wire.clock(c.tip.at), **window(c)}
                            for c, change in sorted(rows, key=order) + sorted(gone, key=order)]})
            doubtful.append({w for w in judged if self.beyond(w, rule) or self.beyond(w, rules[0])})
        return answer, doubtful

    def letters(self):
        """What must lie in the dead letter topics, by topic and position of the source."""
        got = {("deposit", f"{e.record.partition}:{e.record.offset}"): (e.record, e.reason)
               for log in self.entries for e in log if e.verdict == "set_aside"}
        return got | {("flag_wallet", f"{r.partition}:{r.offset}"): (r, reason) for r, reason in self.bad_events}


def raised(flag):
    by = "crossing" if flag.stands() else "operator" if flag.by_operator else None
    return {"raised": flag.raised(), "raised_at": wire.clock(flag.raised_at()) if by else None, "raised_by": by, "op_raised": flag.by_operator}


def summary(flag):
    c = flag.shown
    return c and {"window_start": wire.clock(c.start), "window_end": wire.clock(c.end), "total": amount(c.total), "deposits": number(c.count),
                  "position": c.tip.position(), "rule": rule_of(c.rule), "removed": not flag.stands()}


def window(c):
    return {"window_start": wire.clock(c.start), "window_end": wire.clock(c.end), "total": wire.money(c.total),
            "deposits": number(c.count), "position": c.tip.position()}


def rule_of(rule):
    return {"threshold_amount": amount(rule.threshold), "rolling_period_ms": number(rule.period)}


def part(d):
    return {"amount": amount(d.amount), "deposits": "#1", "first_at": wire.clock(d.at), "last_at": wire.clock(d.at), "position": d.position()}


def standing(applied, rule, now):
    """The fullest window that holds a time."""
    total, end, inside = fullest(applied, now, rule.period)
    inside = sorted(inside, key=lambda d: d.at)
    return {"window_start": wire.clock(end - rule.period), "window_end": wire.clock(end), "total": amount(total), "deposits": number(len(inside)),
            "headroom": amount(max(0, rule.threshold - total)),
            "oldest_expires_at": wire.clock(inside[0].at + rule.period) if inside else None,
            "rule": rule_of(rule), "parts": [part(d) for d in inside]}


# Field names of proto/, for what -service=deadletter decodes.
NAMES = {"deposit": {1: "wallet_id", 2: "units", 3: "nanos", 4: "accepted_at_ms", 6: "idempotency_key", 7: "origin", 8: "sequence", 9: "key_checked"},
         "flag_wallet": {1: "wallet_id", 2: ("crossing", {}), 3: ("raise", {1: "event_id", 2: "at_ms"}),
                         4: ("removal", {1: "event_id", 2: "at_ms", 3: "removed_upto"})}}


def decoded(names, data):
    """The fields of a message as (name, text), and how many bytes are left."""
    out = []
    got, rest = wire.fields(data)
    for n, kind, v in got:
        name = names.get(n, f"field_{n}")
        if isinstance(name, tuple) and kind == wire.BYTES:
            inner, left = decoded(name[1], v)
            out += [(f"{name[0]}.{k}", t) for k, t in inner]
            if not inner or left:
                out.append((name[0], f"{left} bytes not decoded"))
            continue
        name = name[0] if isinstance(name, tuple) else name
        out.append((name, field_text(name, kind, v)))
    return out, rest


def field_text(name, kind, v):
    if kind == wire.VARINT:
        v = wire.signed(v)
        if name.endswith("_ms") and abs(v) < 10**14:
            t = wire.clock(v)
            t = t[:-1].rstrip("0").rstrip(".") + "Z" if "." in t else t
            return f"{v} ({t})"
        return str(v)
    if kind in (wire.FIXED64, wire.FIXED32):
        return f"{v:#x}"
    if kind == wire.GROUP:
        return f"{len(v)} bytes"
    return wire.text_of(v)


def letter(topic, record):
    """A letter of -service=deadletter -json, without reason and where it lies."""
    key, value = record.key, record.value
    got, rest = decoded(NAMES[topic], value or b"")
    out = {"topic": topic + "_dead_letter", "time": wire.clock(record.time), "source_topic": topic,
           "source_position": f"{record.partition}:{record.offset}", "key": None if key is None else wire.text_of(key),
           "key_base64": wire.base64_of(key), "value_base64": wire.base64_of(value),
           "fields": [{"name": n, "text": t} for n, t in got], "undecoded_bytes": number(rest)}
    if record.headers:
        out["headers"] = [{"key": wire.text_of(k), "value_base64": wire.base64_of(v)} for k, v in record.headers]
    return out
