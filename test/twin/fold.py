"""The twin: what the suite promises, folded from the raw log in the plainest way. A wallet's
whole history stays in a list, a window is found by trying every one, nothing is pruned.
It is written from what the documents promise and shares no code with the suite."""

from typing import NamedTuple

import wire

LATENESS = 10_000  # a deposit may come so late and be judged as in order, in ms
EXACT = 256  # deposits of a wallet in a period, up to which windows are exact
TOLD = 15  # clocks besides the latest crossing's, whose last crossing a wallet remembers
KEYS = 100  # that a wallet remembers
EVENTS = 16  # operator events that a flag remembers
PARTS = 128  # deposits that a crossing names at most
ORIGINS = 4  # that a wallet remembers in any case
QUIET = 600_000  # for so long beyond the period a wallet waits for an origin, in ms
LATEST_TIME = 253402300799999  # of the year 9999


class Rule(NamedTuple):
    threshold: int
    period: int


class Deposit(NamedTuple):
    wallet: str
    amount: int
    at: int
    key: str
    origin: int
    sequence: int
    partition: int
    offset: int
    checked: int = 0  # 1 + the offset after the row in which its API did not find the key

    def position(self):
        return f"{self.partition}:{self.offset}"


class Crossing(NamedTuple):
    tip: Deposit
    start: int
    end: int
    total: int
    count: int
    rule: Rule
    parts: list  # of deposits


class SetAside(Exception):
    """Why a record is not applied; the text stands in the suite's reason."""


def partition_of(wallet, partitions):
    """Goka's: FNV-1a of the key, as a signed number without its sign."""
    h = 2166136261
    for b in wallet.encode():
        h = (h ^ b) * 16777619 & 0xFFFFFFFF
    return abs(wire.signed(h, 32)) % partitions if h != 1 << 31 else 0


def is_wallet(name):
    letters = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    return 1 <= len(name) <= 128 and name[0] in letters and set(name) <= letters | set("._:@-")


def keyed(record, partitions):
    """The fields of a record that is what its key says, on the partition of that."""
    if record.value is None:
        raise SetAside("no value")
    try:
        if not record.value:
            raise wire.Malformed
        got = wire.message(record.value)
        wallet = [wire.string(v) for n, kind, v in got if (n, kind) == (1, wire.BYTES)]
    except wire.Malformed:
        raise SetAside("malformed") from None
    if not record.key:
        raise SetAside("no key")
    if not is_wallet(record.key.decode("latin-1")):
        raise SetAside("key is no wallet_id")
    if wallet[-1:] != [record.key.decode()]:
        raise SetAside("differ")
    if partition_of(wallet[-1], partitions) != record.partition:
        raise SetAside("wrong partition")
    return got


def read_deposit(record, partitions):
    """The deposit that a record is."""
    got = keyed(record, partitions)
    try:
        key = wire.string(wire.last(got, 6, wire.BYTES, b""))
        for n, kind, v in got:
            if (n, kind) == (6, wire.BYTES):
                wire.string(v)
    except wire.Malformed:
        raise SetAside("malformed") from None
    units = wire.signed(wire.last(got, 2, wire.VARINT, 0))
    nanos = wire.signed(wire.last(got, 3, wire.VARINT, 0), 32)
    amount = units * wire.NANOS + nanos
    if units < 0 or not 0 <= nanos < wire.NANOS or not 0 < amount <= 10**12 * wire.NANOS:
        raise SetAside("impossible amount")
    at = wire.signed(wire.last(got, 4, wire.VARINT, 0))
    if not 0 < at <= LATEST_TIME:
        raise SetAside("impossible time")
    if key and not (len(key) <= 128 and all("!" <= c <= "~" for c in key)):
        raise SetAside("Idempotency-Key")
    origin, sequence = wire.last(got, 7, wire.FIXED64, 0), wire.last(got, 8, wire.VARINT, 0)
    checked = wire.signed(wire.last(got, 9, wire.VARINT, 0))
    return Deposit(record.key.decode(), amount, at, key, origin, sequence, record.partition, record.offset, checked)


class Entry(NamedTuple):
    """What became of a record of the deposit log."""
    record: object
    deposit: Deposit | None
    verdict: str
    reason: str
    raised_by: int  # what it added to the balance


def read_log(records, partitions):
    """What became of the records of one partition, in order."""
    origins, keys, entries = {}, {}, []
    for r in records:
        try:
            d = read_deposit(r, partitions)
        except SetAside as reason:
            entries.append(Entry(r, None, "set_aside", str(reason), 0))
            continue
        known = keys.setdefault(d.wallet, [])  # (key, amount, offset), oldest first
        highest = origins.get((d.wallet, d.origin), 0)
        amounts = [amount for key, amount, _ in known[-KEYS:] if d.key and key == d.key]
        verdict = "applied"
        if d.origin and d.sequence <= highest:
            verdict = "repeated"
        elif amounts:
            verdict = "key_replayed" if amounts[-1] == d.amount else "key_conflict"
        elif d.key and d.checked > 0 and len(known) >= KEYS and d.checked - 1 < known[-KEYS][2]:
            verdict = "key_stale"  # the key may be one that was used and forgotten since
        elif d.key:
            known.append((d.key, d.amount, d.offset))
        if d.origin:
            origins[d.wallet, d.origin] = max(highest, d.sequence)
        entries.append(Entry(r, d, verdict, "", d.amount if verdict == "applied" else 0))
    return entries


def fullest(deposits, at, period):
    """Of all windows (end - period, end] that hold a time, the fullest, and of equal ones
    the earliest: its sum, its end, and what is in it. A window's sum grows only where a
    deposit enters, so only those ends are tried, and the first one of all."""
    near = [d for d in deposits if at - period < d.at < at + period]
    best = None
    for end in sorted({at} | {d.at for d in near if d.at > at}):
        inside = [d for d in near if end - period < d.at <= end]
        total = sum(d.amount for d in inside)
        if best is None or total > best[0]:
            best = total, end, inside
    return best


class Judged(NamedTuple):
    window: int  # the largest sum in a window that holds the deposit
    crossing: Crossing | None


def judge(deposits, rule_of):
    """Holds a wallet's applied deposits, in the order of the log, against the rule that
    rule_of tells for each."""
    before, judged, old, told = [], [], None, []  # told: of each clock, when it last crossed
    for d in deposits:
        rule = rule_of(d)
        total, end, inside = fullest(before, d.at, rule.period)
        above = total > rule.threshold
        if above and old not in (None, rule):  # above before is so only under both rules
            above = fullest(before, d.at, old.period)[0] > old.threshold
        gone = not any(-rule.period - LATENESS < d.at - at < rule.period for at in told)
        crossing = None
        if total + d.amount > rule.threshold and (not above or gone):
            inside = sorted([*inside, d], key=lambda x: x.at)  # those of one time in their order
            parts = inside[-PARTS:]
            if d not in parts:
                parts = [d] + parts[1:]
            crossing = Crossing(d, end - rule.period, end, total + d.amount, len(inside), rule, parts)
            own = max((at for at in told if at <= d.at), default=None)
            if own is not None:
                told.remove(own)
            told = told[-TOLD:] + [d.at]
        judged.append(Judged(total + d.amount, crossing))
        before.append(d)
        old = rule
    return judged


def beyond(deposits, rule_of):
    """Whether a wallet's history leaves what is promised of windows. "late": a deposit more
    than LATENESS behind its own origin's clock, one of an origin that was quiet for longer than
    is waited for or that comes new with a clock behind all others, or more origins than are
    surely remembered. "dense": more deposits than are kept apart. Else None."""
    clocks, heard, dense = {}, {}, False  # heard: what the clocks were at an origin's latest
    for i, d in enumerate(deposits):
        period = rule_of(d).period
        before = heard.get(d.origin, clocks)
        quiet = max((clocks[o] - at for o, at in before.items()), default=0)
        late = d.at < clocks[d.origin] - LATENESS if d.origin in clocks else d.at < min(clocks.values(), default=0)
        if late or quiet > QUIET + period - ORIGINS * LATENESS:
            return "late"
        clocks[d.origin] = max(clocks.get(d.origin, 0), d.at)
        heard[d.origin] = dict(clocks)
        if len(clocks) > ORIGINS:
            return "late"
        oldest = min(clocks.values()) - LATENESS - period
        dense = dense or i >= EXACT and sum(x.at > oldest for x in deposits[:i + 1]) > EXACT
    return "dense" if dense else None


class Event(NamedTuple):
    """A record of flag_wallet that may be applied: one of its kinds."""
    wallet: str
    kind: str  # crossing, raise or removal
    tip: int = -1  # of a crossing: the deposit's offset
    id: int = 0
    at: int = 0
    upto: int = 0


def read_event(record, partitions):
    got = keyed(record, partitions)
    kinds = [(n, v) for n, kind, v in got if n in (2, 3, 4) and kind == wire.BYTES]
    if not kinds:
        raise SetAside("unknown kind")
    wallet, number = record.key.decode(), kinds[-1][0]
    try:
        inner = wire.message(b"".join(v for n, v in kinds if n == number))
        if number == 2:
            evidence = wire.last(inner, 1, wire.BYTES, None)
            if evidence is None:
                raise SetAside("crossing without evidence")
            return Event(wallet, "crossing", wire.last(wire.message(evidence), 2, wire.VARINT, 0))
    except wire.Malformed:
        raise SetAside("malformed") from None
    event, at = wire.last(inner, 1, wire.FIXED64, 0), wire.signed(wire.last(inner, 2, wire.VARINT, 0))
    if number == 3:
        return Event(wallet, "raise", id=event, at=at)
    upto = wire.signed(wire.last(inner, 3, wire.VARINT, 0))
    if upto < 0:
        raise SetAside("negative offset")
    return Event(wallet, "removal", id=event, at=at, upto=upto)


class Flag:
    """A wallet's flag, folded from flag_wallet in its order. A crossing there only names its
    deposit: what is in it the twin knows by itself."""

    def __init__(self, crossings):
        self.crossings = {c.tip.offset: c for c in crossings}
        self.events = []
        self.shown = self.latest = None  # the crossing that raised the flag, and the latest one
        self.parts = []  # of the shown one, as far as they are told
        self.upto = self.removals = self.removed_at = self.op_at = 0
        self.by_operator = False

    def apply(self, e):
        if e.kind == "crossing":
            crossing = self.crossings.get(e.tip)
            if crossing is None or self.latest and e.tip <= self.latest.tip.offset:
                return  # told before, or by nobody: what is on flag_wallet is compared by itself
            if not self.stands():
                self.shown, self.parts = crossing, crossing.parts
            self.latest = crossing
            return
        if e.id:
            if e.id in self.events[-EVENTS:]:
                return
            self.events.append(e.id)
        if e.kind == "raise":
            self.by_operator, self.op_at = True, e.at
            return
        self.by_operator = False
        self.upto = max(self.upto, e.upto)
        self.removals += 1
        self.removed_at = e.at
        if self.stands() and self.shown.tip.offset < self.upto:  # the removal did not know the latest
            self.shown, self.parts = self.latest, []

    def stands(self):
        """Whether a crossing holds the flag up."""
        return self.latest is not None and self.latest.tip.offset >= self.upto

    def raised(self):
        return self.by_operator or self.stands()

    def raised_at(self):
        return self.shown.tip.at if self.stands() else self.op_at
