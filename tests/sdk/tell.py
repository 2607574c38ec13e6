"""How a program speaks with the test that runs it: a line of JSON out, then "go" in."""

import json
import sys

# Where the service in the sandbox listens.
PORT = 8080


def tell(sandbox, **facts):
    """Says what the sandbox is and more, and waits until the test has looked at the wire."""
    known = {
        "sandboxID": sandbox.sandbox_id,
        "host": sandbox.get_host(PORT),
        "token": sandbox.traffic_access_token,
    }
    print(json.dumps(known | facts), flush=True)
    if sys.stdin.readline() != "go\n":
        sys.exit("the test does not want to go on")


def complaint(attempt):
    """The class and the message of the exception in which an attempt ends; none if it does not."""
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
