"""What `.ci/conformance` does to the requests that schemathesis makes: none may wait for longer than a test does.

A request that asks to wait for a month is answered in a month, a watch without `wait` is a stream that does not end, and
a write that its caller gives a tenth of a second may be a 504 on a busy machine. All are right, and no test of the
description. So waits are cut short, a watch has one, and a patience that is valid is no shorter than two seconds.

Two parameters that are good each by itself may exclude each other, which no schema of OpenAPI can say: of those the
second is left out.
"""

import schemathesis

LONGEST = 0.2
PATIENCE = 2.0
# The largest `maxAge`.
OLDEST = 3600
# Any request may carry headers of others: to refuse those would refuse every proxy's.
UNKNOWN = "x-schemathesis-unknown-property"


def number(value):
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def stale_or_no_age(query):
    """`maxAge` goes with `consistency=stale` only."""
    age = number(query.get("maxAge"))
    if query.get("consistency", "linearizable") == "linearizable" and age is not None and 0 <= age <= OLDEST:
        del query["maxAge"]


def texts(value):
    """All texts in it, those that name fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(name)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def is_longer_in_bytes(text):
    """Lengths are bounded in bytes, and a schema counts characters: these are valid to it alone."""
    count = len(text.encode("utf-8", "surrogatepass"))
    return any(len(text) <= bound < count for bound in (256, 1024))


@schemathesis.hook
def filter_case(ctx, case):
    parts = (case.path_parameters, case.query, case.headers, case.body)
    if any(is_longer_in_bytes(text) for part in parts if isinstance(part, (dict, list)) for text in texts(part)):
        return False
    return UNKNOWN not in {name.lower() for name in case.headers or {}}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    if isinstance(case.body, dict) and isinstance(case.body.get("wait"), (int, float)):
        if not isinstance(case.body["wait"], bool) and case.body["wait"] > LONGEST:
            case.body["wait"] = LONGEST
    if case.query:
        stale_or_no_age(case.query)
    patience = number((case.headers or {}).get("X-Wardlock-Timeout"))
    if patience is not None and 0.1 <= patience < PATIENCE:
        case.headers["X-Wardlock-Timeout"] = str(PATIENCE)
    if case.operation.path == "/api/v1/watch":
        wait = (case.query or {}).get("wait")
        if wait is None or (number(wait) is not None and number(wait) > LONGEST):
            case.query["wait"] = LONGEST
