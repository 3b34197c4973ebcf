"""What was taken from flag_wallet: one appended line is the event, its version and its
effect, so that a crash keeps all of it or nothing."""

import json
import os


class Account:
    """What is known of one wallet: the same fold as the suite's own
    (internal/wallet/flag.go)."""

    def __init__(self):
        self.next_tip = 0  # version + 1 of the latest crossing, 0 for none
        self.removed = 0  # crossings below are removed
        self.by_hand = False
        self.ids = set()

    def raised(self):
        return self.by_hand or (self.next_tip > 0 and self.next_tip - 1 >= self.removed)

    def seen(self, event):
        """Whether the event was taken before: sent twice, or delivered again."""
        if event["event"] == "crossing":
            return event["version"] < self.next_tip
        return event["id"] in self.ids

    def apply(self, event):
        if event["event"] == "crossing":
            self.next_tip = event["version"] + 1
            return
        self.by_hand = event["event"] == "raise"
        if event["event"] == "removal":
            self.removed = max(self.removed, event["version"])
        if event["id"] != "0":  # 0: the sender gave none
            self.ids.add(event["id"])


class Journal:
    def __init__(self, path):
        self.wallets = {}
        self.file = open(path, "a+b")
        self.file.seek(0)
        whole = 0
        for line in self.file:
            # A line that a crash cut short is no line: its event was not committed
            # and comes again.
            if not line.endswith(b"\n"):
                break
            event = json.loads(line)
            self.wallets.setdefault(event["wallet"], Account()).apply(event)
            whole += len(line)
        self.file.truncate(whole)

    def take(self, event):
        """Appends an event that was not taken before, and prints what it changed."""
        account = self.wallets.setdefault(event["wallet"], Account())
        if account.seen(event):
            return
        before = account.raised()
        account.apply(event)
        if account.raised() != before:
            event["effect"] = "removed" if before else "raised"
        self.file.write(json.dumps(event).encode() + b"\n")
        if "effect" in event:
            print(event["wallet"], event["effect"], flush=True)

    def sync(self):
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self):
        self.file.close()
