"""Random histories: wallets of several habits, origins with clocks of their own, poison and
operator events. Within what is promised but for the few wallets that are there to leave it."""

import wire
from fold import EXACT, KEYS, LATENESS, Rule, partition_of

THRESHOLDS = ["10000", "0.3", "1000.5", "250000.000000001", "999999999999"]
PERIODS = [2_000, 20_000, 120_000, 90_001]
LARGEST = 10**12 * wire.NANOS  # amount of a deposit, and threshold of a rule
LETTERS = "ABCXYZabcxyz0189"

# habit: how many wallets, deposits each, most origins
HABITS = {
    "calm": (12, 40, 1), "late": (12, 60, 1), "clocks": (26, 70, 4), "keyed": (12, 100, 2), "repeating": (12, 80, 3),
    "foreign": (6, 50, 0), "mixed": (8, 20, 1), "hot": (3, 450, 1), "edges": (20, 60, 2), "steady": (8, 50, 1), "dense": (1, 700, 1),
    "very late": (3, 40, 1), "forgetful": (2, KEYS + 60, 1),
}
BEYOND = ("dense", "very late")  # what is promised of windows: what is left of it is compared


class Wallet:
    def __init__(self, world, habit, origins):
        r = world.rng
        self.name = r.choice(LETTERS) + "".join(r.choice(LETTERS + "._:@-") for _ in range(r.choice([0, 5, 12, 40, 127])))
        while self.name in world.names:
            self.name = self.name[:120] + r.choice(LETTERS)
        world.names.add(self.name)
        self.habit, self.origins = habit, origins
        self.fresh = sorted(origins, key=lambda o: -o[1])  # heard of first from the slowest clock on
        self.partition = partition_of(self.name, world.partitions)
        # Some end about now, so that their window is not empty when it is asked for.
        self.real = world.now - (86_400_000 if habit == "mixed" else r.choice([86_400_000, r.randrange(20 * world.rule.period)]))
        self.keys, self.values, self.held_back, self.turn = [], [], None, 0


class World:
    """Makes what is appended. Its times are milliseconds; it reads no clock."""

    def __init__(self, rng, partitions, now):
        self.rng, self.partitions, self.now = rng, partitions, now
        self.names, self.wallets, self.sequences, self.events = set(), [], {}, []
        self.rule = Rule(read_money(rng.choice(THRESHOLDS)), rng.choice(PERIODS))
        ahead = [0, rng.randrange(-9_000, 9_000), -61_000, self.rule.period, 3 * self.rule.period, -7_200_000, 7_200_000]
        self.origins = [(rng.getrandbits(64) | 1, ms) for ms in ahead]

    def settle(self, scale=1):
        """Wallets of every habit, on origins of their own choice."""
        for habit, (count, _, most) in HABITS.items():
            for _ in range(max(1, round(count * scale))):
                origins = [(0, 0)] if most == 0 else self.rng.sample(self.origins, self.rng.randint(min(most, 2), most))
                if habit == "very late" or habit in ("hot", "dense"):
                    origins = origins[:1]
                self.wallets.append(Wallet(self, habit, origins))

    def change_rule(self, longer):
        """Another rule. A longer period comes with a pause in which all that it could have
        seen, had it not been pruned, leaves its windows."""
        r, old = self.rng, self.rule
        threshold = old.threshold * r.choice([3, 10, 15, 7]) // 10 + r.choice([0, 1])
        period = old.period * r.choice([2, 3]) if longer else r.choice([old.period, old.period // 2, max(1, old.period * 9 // 10)])
        if threshold > LARGEST:
            threshold = old.threshold // 3
        self.rule = Rule(max(1, threshold), period)
        for w in self.wallets if longer else []:
            w.real += old.period + period + 3 * LATENESS
            w.held_back = None

    def amount(self, w):
        r, top = self.rng, self.rule.threshold
        if w.habit == "steady" and r.random() < 0.9:  # above for good, and told once a period
            return min(top // 2 + 1, LARGEST)
        small = max(1, top // (300 if w.habit in ("hot", "dense") else 12))
        a = r.choice([small, small, r.randint(1, small), r.randint(1, small), min(top // r.randint(2, 8), small * 4) or 1])
        if r.random() < (0.01 if w.habit in ("hot", "dense") else 0.08):
            a = r.choice([top, top + 1, top // 2, top // 2 + 1, top - small + 1])
        return min(max(1, a), LARGEST)

    def step(self, w):
        """Time that passes before a wallet's next deposit. Whole periods, to the millisecond,
        are what windows turn on."""
        r, p = self.rng, self.rule.period
        if w.habit == "hot":
            return (p + LATENESS) // (EXACT - 20) + r.randint(0, 3)
        if w.habit == "dense":
            return p // 600
        if w.habit == "steady":  # four steps are one period
            w.turn += 1
            return p // 4 if w.turn % 4 else p - p // 4 * 3
        if w.habit == "edges":
            return r.choice([0, 1, p - 1, p, p + 1, p // 2, p // 3, r.randint(0, p)])
        if len(w.origins) > 1:  # none of which is to be quiet for long
            return r.choice([0, 1, r.randint(0, p // 2), r.randint(0, p // 4), r.randint(0, p // 8), p - 1 if r.random() < 0.2 else 1])
        return r.choice([0, 1, r.randint(0, p // 2), r.randint(0, p // 4), r.randint(0, p // 4), p - 1, p, r.randint(0, 3 * p)])

    def late(self, w):
        r = self.rng
        if w.habit in ("late", "clocks", "edges", "mixed", "foreign") and r.random() < 0.4:
            return r.choice([1, LATENESS, LATENESS - 1, r.randint(0, LATENESS), min(LATENESS, self.rule.period)])
        if w.habit == "very late" and r.random() < 0.3:
            return r.randint(LATENESS + 1, LATENESS + 3 * self.rule.period)
        return 0

    def key(self, w):
        r = self.rng
        share = {"keyed": 0.7, "forgetful": 0.95, "repeating": 0.2}.get(w.habit, 0.03)
        if r.random() > share:
            return "", 0
        if w.keys and r.random() < 0.3:
            key, amount = r.choice(w.keys[-KEYS * 3 // 2:])
            return key, amount if r.random() < 0.7 else amount + 1
        key = "".join(chr(r.randint(0x21, 0x7e)) for _ in range(r.choice([1, 8, 36, 128])))
        amount = self.amount(w)
        w.keys.append((key, amount))
        return key, amount

    def deposit(self, w, offset):
        """The next record of a wallet, as (time, key, value, headers); it will stand at an offset."""
        r = self.rng
        if w.values and r.random() < (0.25 if w.habit == "repeating" else 0.02):
            return w.real, w.name.encode(), r.choice(w.values), []
        w.real += self.step(w)
        key, amount = self.key(w)
        origin, ahead = w.fresh[-1] if w.fresh else r.choice(w.origins)
        at = w.real + ahead - (0 if w.fresh else self.late(w))
        w.fresh = w.fresh[:-1]
        sequence = 0
        if origin:
            sequence = self.sequences[origin, w.partition] = self.sequences.get((origin, w.partition), 0) + 1
        value = wire.deposit(w.name, amount or self.amount(w), at, key, origin, sequence,
                             r.choice([0, 1, r.randint(1, offset + 1), offset + 1, offset + 1]) if key else 0)
        if r.random() < 0.03:  # written otherwise, and the same
            value = r.choice([value + wire.put(99, b"more"), wire.put(2, 77) + value, wire.put(3, b"text") + value])
        if origin:
            if w.habit == "repeating" and w.held_back is None and r.random() < 0.1:
                w.held_back = value  # one that was given up, and is appended behind its successors
                return self.deposit(w, offset)
            w.values.append(value)
            if w.held_back and r.random() < 0.1:
                value, w.held_back = w.held_back, None
        return w.real, w.name.encode(), value, r.choice([[], [], [(b"trace", b"\x00\xff"), (b"trace", None)]])

    def deposits(self, share, ends):
        """A share of every wallet's deposits, mixed, with poison among them: lists of records
        by partition, to be appended at the ends of the log."""
        r = self.rng
        turns = [w for w in self.wallets for _ in range(round(HABITS[w.habit][1] * share))]
        r.shuffle(turns)
        logs = [[] for _ in range(self.partitions)]
        for w in turns:
            logs[w.partition].append(self.deposit(w, ends[w.partition] + len(logs[w.partition])))
            if r.random() < 0.02:
                partition, record = self.poison(w)
                logs[partition].append(record)
        return logs

    def poison(self, w):
        """What cannot be applied, of every kind that the documents name."""
        r, name = self.rng, w.name.encode()
        good = wire.deposit(w.name, self.amount(w), w.real)
        other = (w.partition + 1) % self.partitions
        value = {
            "none": None, "empty": b"", "cut": good[:-1], "noise": r.randbytes(r.randint(1, 60)),
            "group": good + b"\x4b\x08\x01\x4c", "end": good + b"\x4c", "text": wire.put(1, b"\xff\xfe") + good[2:],
            "zero": wire.deposit(w.name, 0, w.real), "nanos": wire.put(1, name) + wire.put(2, 1) + wire.put(3, 10**9) + wire.put(4, w.real),
            "negative": wire.put(1, name) + wire.put(2, -5) + wire.put(4, w.real), "huge": wire.deposit(w.name, LARGEST + 1, w.real),
            "no time": wire.deposit(w.name, 5, 0), "late time": wire.deposit(w.name, 5, 253402300800000), "early": wire.deposit(w.name, 5, -1),
            "key": wire.deposit(w.name, 5, w.real, "a b"), "long key": wire.deposit(w.name, 5, w.real, "k" * 129),
            "other": wire.deposit("somebody", 5, w.real), "partition": good, "no key": good, "empty key": good,
            "bad key": wire.deposit("_" + w.name[:9], 5, w.real), "control": wire.put(1, b"a\x1b[31m\n\"\\\xc3\xa9\xe2\x80\xae"),
            "fixed": wire.put(1, name) + wire.put_fixed64(2, 7),
        }
        kind = r.choice(list(value))
        key = {"no key": None, "empty key": b"", "bad key": b"_" + name[:9]}.get(kind, name)
        headers = r.choice([[], [(b"dead-letter-reason", b"\x1b[2J"), (b"", b"")], [(b"h\xff", None)]])
        return other if kind == "partition" else w.partition, (w.real, key, value[kind], headers)

    def operators(self, count, ends):
        """Events of operators for flag_wallet, by partition; ends are those of deposit."""
        r, logs = self.rng, [[] for _ in range(self.partitions)]
        for _ in range(count):
            w = r.choice([w for w in self.wallets if w.habit not in BEYOND])
            event, at = r.getrandbits(64) | 1, self.now + r.randint(-10**6, 0)
            if self.events and r.random() < 0.2:
                event, w = r.choice(self.events)
            self.events.append((event, w))
            end = ends[w.partition]
            value = wire.raised(w.name, event, at)
            if r.random() < 0.6:
                value = wire.removed(w.name, event, at, r.choice([0, end, end, end + 2, r.randint(0, end)]))
            partition, key = w.partition, w.name.encode()
            if r.random() < 0.15:
                value, partition, key = r.choice([
                    (None, partition, key), (b"", partition, key), (value[:-1], partition, key), (value, partition, None),
                    (wire.put(1, key), partition, key), (wire.put(1, key) + wire.put(2, b""), partition, key),
                    (wire.removed(w.name, event, at, -1), partition, key), (value, (partition + 1) % self.partitions, key),
                    (wire.raised("somebody", event, at), partition, key)])
            logs[partition].append((at, key, value, []))
        return logs


def read_money(text):
    whole, _, fraction = text.partition(".")
    return int(whole) * wire.NANOS + int(fraction.ljust(9, "0"))
