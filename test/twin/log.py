"""A tiny Kafka client: appends records to a partition and reads a topic whole. It speaks
to one broker, uncompressed, and shares nothing with the suite's clients."""

import socket
import struct
from typing import NamedTuple

EARLIEST, LATEST = -2, -1


class Record(NamedTuple):
    partition: int
    offset: int
    time: int  # the record's own, Unix milliseconds
    key: bytes | None
    value: bytes | None
    headers: list  # of (name, value), both bytes or None


class Log:
    """A connection to the broker. Not for several threads."""

    def __init__(self, host, port, timeout=20):
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0

    def close(self):
        self.sock.close()

    def call(self, api, version, body):
        self.sent += 1
        head = struct.pack(">hhih4s", api, version, self.sent, 4, b"twin")
        self.sock.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        answer = self.exactly(struct.unpack(">i", self.exactly(4))[0])
        if struct.unpack(">i", answer[:4])[0] != self.sent:
            raise OSError("an answer to another request")
        return Reader(answer, 4)

    def exactly(self, n):
        parts = []
        while n:
            part = self.sock.recv(n)
            if not part:
                raise OSError("the broker hung up")
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def append(self, topic, partition, records):
        """Appends (time, key, value, headers) in one batch; answers the first offset."""
        batch = encode_batch(records)
        body = struct.pack(">hhii", -1, -1, 10_000, 1) + text(topic)
        body += struct.pack(">iii", 1, partition, len(batch)) + batch
        r = self.call(0, 3, body)
        r.int32(), r.text(), r.int32(), r.int32()
        code, offset = r.int16(), r.int64()
        if code:
            raise OSError(f"append to {topic} {partition}: error code {code}")
        return offset

    def end(self, topic, partition, which=LATEST):
        """The high watermark of a partition, or its earliest offset."""
        r = self.call(2, 1, struct.pack(">ii", -1, 1) + text(topic) + struct.pack(">iiq", 1, partition, which))
        r.int32(), r.text(), r.int32(), r.int32()
        code, _, offset = r.int16(), r.int64(), r.int64()
        if code:
            raise OSError(f"end of {topic} {partition}: error code {code}")
        return offset

    def ends(self, topic, partitions):
        return [self.end(topic, p) for p in range(partitions)]

    def read(self, topic, partition, start, end):
        """The records of a partition from start on, below end."""
        records, at = [], start
        while at < end:
            body = struct.pack(">iiiibi", -1, 500, 1, 16 << 20, 0, 1) + text(topic)
            r = self.call(1, 4, body + struct.pack(">iiqi", 1, partition, at, 8 << 20))
            r.int32(), r.int32(), r.text(), r.int32(), r.int32()
            code = r.int16()
            if code:
                raise OSError(f"read {topic} {partition}: error code {code}")
            r.int64(), r.int64()
            for _ in range(r.int32()):
                r.int64(), r.int64()
            got, after = decode_batches(partition, r.bytes() or b"")
            records += [x for x in got if at <= x.offset < end]
            at = max(at, after)
        return records


def text(s):
    b = s.encode()
    return struct.pack(">h", len(b)) + b


class Reader:
    """Takes values off bytes, as Kafka writes them."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def int8(self):
        return struct.unpack(">b", self.take(1))[0]

    def int16(self):
        return struct.unpack(">h", self.take(2))[0]

    def int32(self):
        return struct.unpack(">i", self.take(4))[0]

    def int64(self):
        return struct.unpack(">q", self.take(8))[0]

    def text(self):
        n = self.int16()
        return None if n < 0 else self.take(n).decode()

    def bytes(self):
        n = self.int32()
        return None if n < 0 else self.take(n)

    def zigzag(self):
        n = shift = 0
        while True:
            b = self.data[self.at]
            self.at += 1
            n |= (b & 127) << shift
            shift += 7
            if b < 128:
                return n >> 1 ^ -(n & 1)

    def var(self):
        n = self.zigzag()
        return None if n < 0 else self.take(n)


def zigzag(n):
    n = n << 1 if n >= 0 else (-n << 1) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def var(b):
    return zigzag(-1) if b is None else zigzag(len(b)) + b


def encode_batch(records):
    first = records[0][0]
    body = bytearray()
    for i, (time, key, value, headers) in enumerate(records):
        r = b"\0" + zigzag(time - first) + zigzag(i) + var(key) + var(value) + zigzag(len(headers))
        r += b"".join(var(k) + var(v) for k, v in headers)
        body += zigzag(len(r)) + r
    last = max(r[0] for r in records)
    crced = struct.pack(">hiqqqhii", 0, len(records) - 1, first, last, -1, -1, -1, len(records)) + bytes(body)
    return struct.pack(">qiibI", 0, 9 + len(crced), -1, 2, crc32c(crced)) + crced


def decode_batches(partition, data):
    """The records of whole batches, and the offset after them."""
    records, after, r = [], -1, Reader(data)
    while len(data) - r.at >= 61:
        base, length = r.int64(), r.int32()
        end = r.at + length
        if end > len(data):
            break
        r.int32(), r.int8(), r.int32()
        attributes, last, first, _ = r.int16(), r.int32(), r.int64(), r.int64()
        r.int64(), r.int16(), r.int32()
        if attributes & 7:
            raise OSError("a compressed batch")
        for _ in range(r.int32()):
            r.zigzag(), r.int8()
            time, offset = first + r.zigzag(), base + r.zigzag()
            key, value = r.var(), r.var()
            headers = [(r.var(), r.var()) for _ in range(r.zigzag())]
            if not attributes & 32:  # a control batch holds no record of anybody's
                records.append(Record(partition, offset, time, key, value, headers))
        r.at, after = end, base + last + 1
    return records, after


def crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ TABLE[(crc ^ b) & 255]
    return crc ^ 0xFFFFFFFF
