"""What schemathesis cannot know from the document: how a stream's lines are sent; that
an amount has at most 9 decimal places, which JSON Schema cannot say for the binary
fractions that it generates; that a position that looks like one is hardly ever the
wallet's; and that a key in the header and one in the body have to be the same. Those are
left out, so that the rest of the request is what is judged."""

import re

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    return value if isinstance(value, (bytes, str)) else str(value)


@schemathesis.hook
def map_body(ctx, body):
    if isinstance(body, dict) and isinstance(body.get("amount"), float):
        amount = round(body["amount"], 9)
        if (amount > 0) == (body["amount"] > 0):
            body["amount"] = amount
        else:
            body["amount"] = 1e-9
    return body


@schemathesis.hook
def before_call(ctx, case, kwargs):
    position = (case.headers or {}).get("X-Deposit-Position")
    if isinstance(position, str) and re.fullmatch("[0-9]{1,10}:[0-9]{1,19}", position):
        del case.headers["X-Deposit-Position"]
    if isinstance(case.body, dict) and "Idempotency-Key" in (case.headers or {}):
        case.body.pop("idempotency_key", None)
