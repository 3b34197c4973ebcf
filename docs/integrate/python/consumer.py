"""Follows topic flag_wallet and tells of each flag that is raised or removed, once:
the example of docs/integrate.md."""

import argparse
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaException
from google.protobuf.message import DecodeError

from flag_pb2 import FlagEvent  # protoc -I proto --python_out=DIR flag.proto
from journal import Journal


def decode(record):
    """The event of a record, as a line of the journal; ValueError if it is none."""
    message = FlagEvent.FromString(record.value() or b"")
    if not message.wallet_id or message.wallet_id.encode() != record.key():
        raise ValueError("key and wallet_id differ")
    kind = message.WhichOneof("event")
    event = {"wallet": message.wallet_id, "event": kind, "version": 0}
    if kind == "crossing":
        if not message.crossing.HasField("evidence"):
            raise ValueError("a crossing without evidence")
        event["version"] = message.crossing.evidence.offset
    elif kind == "raise":
        event["id"] = str(getattr(message, "raise").event_id)  # a word of Python's own
    elif kind == "removal":
        event["id"] = str(message.removal.event_id)
        event["version"] = message.removal.removed_upto
    else:
        raise ValueError("an event of an unknown kind")
    return event


def commit(consumer):
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as e:
        if e.args[0].name() != "_NO_OFFSET":  # nothing new to commit
            raise


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--brokers", default="localhost:9092", help="Kafka's bootstrap servers, comma-separated")
    flags.add_argument("--group", default="flag-consumer-python", help="consumer group")
    flags.add_argument("--journal", default="flags.ndjson", help="file of the events taken, one a line")
    flags.add_argument("--commit-every", type=float, default=1.0, help="seconds between two commits of offsets")
    args = flags.parse_args()

    stopping = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.append(True))
    journal = Journal(args.journal)
    consumer = Consumer({
        "bootstrap.servers": args.brokers,
        "group.id": args.group,
        "auto.offset.reset": "earliest",  # a new group begins with the first flag
        "enable.auto.commit": False,
        "session.timeout.ms": 10_000,  # how soon one that was killed is missed
    })
    consumer.subscribe(["flag_wallet"])
    committed = time.monotonic()
    try:
        while not stopping:
            for record in consumer.consume(num_messages=500, timeout=min(0.2, args.commit_every)):
                if record.error():
                    if record.error().fatal():
                        raise KafkaException(record.error())
                    print(record.error(), file=sys.stderr)  # the client goes on by itself
                    continue
                try:
                    event = decode(record)
                except (DecodeError, ValueError) as e:  # the suite sets it aside too, in flag_wallet_dead_letter
                    print(f"flag_wallet {record.partition()}:{record.offset()} is passed over: {e}", file=sys.stderr)
                    continue
                journal.take(event)
            journal.sync()  # the effect is on disk: now it may be committed
            if time.monotonic() - committed >= args.commit_every:
                commit(consumer)
                committed = time.monotonic()
        commit(consumer)
    finally:
        consumer.close()
        journal.close()


if __name__ == "__main__":
    main()
