"""Protobuf and texts by hand, as proto/ and the documents of the suite describe them:
no generated messages. An amount is an integer of billionths, a time one of milliseconds."""

import base64
import datetime
import struct

NANOS = 10**9
VARINT, FIXED64, BYTES, GROUP, END, FIXED32 = range(6)


class Malformed(Exception):
    """The bytes are no message from some byte on."""


def varint(data, at):
    n = shift = 0
    for i in range(10):
        if at + i >= len(data):
            raise Malformed
        b = data[at + i]
        if i == 9 and b > 1:
            raise Malformed
        n |= (b & 127) << shift
        shift += 7
        if b < 128:
            return n, at + i + 1
    raise Malformed


def value(data, at, kind, number):
    """The value of a field and where it ends; of a group its bytes, end included."""
    if kind == VARINT:
        return varint(data, at)
    if kind in (FIXED64, FIXED32):
        size = 8 if kind == FIXED64 else 4
        if at + size > len(data):
            raise Malformed
        return int.from_bytes(data[at:at + size], "little"), at + size
    if kind == BYTES:
        n, at = varint(data, at)
        if at + n > len(data):
            raise Malformed
        return data[at:at + n], at + n
    if kind == GROUP:
        start = at
        while True:
            inner, inner_kind, at = tag(data, at)
            if inner_kind == END:
                if inner != number:
                    raise Malformed
                return data[start:at], at
            _, at = value(data, at, inner_kind, inner)
    raise Malformed


def tag(data, at):
    n, at = varint(data, at)
    number = n >> 3
    if not 1 <= number < 1 << 29:
        raise Malformed
    return number, n & 7, at


def fields(data):
    """(number, kind, value) up to the first byte that belongs to none, and how many bytes
    are left from there on."""
    got, at = [], 0
    while at < len(data):
        try:
            number, kind, after = tag(data, at)
            v, after = value(data, after, kind, number)
        except Malformed:
            break
        got.append((number, kind, v))
        at = after
    return got, len(data) - at


def message(data):
    got, rest = fields(data)
    if rest:
        raise Malformed
    return got


def last(got, number, kind, default):
    """What a field that is not repeated says: the last of its type counts."""
    found = [v for n, k, v in got if (n, k) == (number, kind)]
    return found[-1] if found else default


def signed(n, bits=64):
    n &= (1 << bits) - 1
    return n - (1 << bits) if n >> bits - 1 else n


def string(b):
    try:
        return b.decode()
    except UnicodeDecodeError:
        raise Malformed from None


# Writing.

def put_varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def put(number, v):
    """A field: bytes, or a number as varint."""
    if isinstance(v, bytes):
        return put_varint(number << 3 | BYTES) + put_varint(len(v)) + v
    return put_varint(number << 3) + put_varint(v)


def put_fixed64(number, v):
    return put_varint(number << 3 | FIXED64) + struct.pack("<Q", v)


def deposit(wallet, amount, at, key="", origin=0, sequence=0, checked=0):
    units, nanos = divmod(amount, NANOS)
    b = put(1, wallet.encode()) + put(2, units) + (put(3, nanos) if nanos else b"") + put(4, at)
    if key:
        b += put(6, key.encode())
    if origin:
        b += put_fixed64(7, origin) + put(8, sequence)
    return b + (put(9, checked) if checked else b"")


def raised(wallet, event, at):
    return put(1, wallet.encode()) + put(3, put_fixed64(1, event) + put(2, at))


def removed(wallet, event, at, upto):
    return put(1, wallet.encode()) + put(4, put_fixed64(1, event) + put(2, at) + put(3, upto))


# Texts.

def money(amount):
    units, nanos = divmod(amount, NANOS)
    return f"{units}.{nanos:09}".rstrip("0").rstrip(".")


def clock(ms, empty=None):
    """RFC 3339 in UTC with three decimals; `empty` instead of 0, unless that is None."""
    if ms == 0 and empty is not None:
        return empty
    t = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)
    return t.isoformat(timespec="milliseconds") + "Z"


def period(ms):
    """As Go writes a duration, without the zeros at its end."""
    hours, rest = divmod(ms, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds = f"{rest // 1000}.{rest % 1000:03}".rstrip("0").rstrip(".") + "s"
    if ms < 1000:
        return f"{ms}ms"
    head = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours and rest or minutes else "")
    return head + (seconds if rest or not head else "")


def base64_of(b):
    return None if b is None else base64.b64encode(b).decode()


def text_of(b):
    """Bytes as JSON has them: a text, in which a byte that is no UTF-8 is U+FFFD."""
    return "".join("\ufffd" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in b.decode("utf-8", "surrogateescape"))
