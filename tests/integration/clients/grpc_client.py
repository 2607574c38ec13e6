"""Calls grpc_service.py: python3 grpc_client.py ADDRESS AUTHORITY CALL [TOKEN]. Prints the outcome."""

import sys

import grpc

ADDRESS, AUTHORITY, CALL = sys.argv[1:4]
METADATA = tuple(("e2b-traffic-access-token", token) for token in sys.argv[4:])
channel = grpc.insecure_channel(ADDRESS, options=[("grpc.default_authority", AUTHORITY)])


def unary(request, metadata=()):
    call = channel.unary_unary("/test.Echo/Unary")
    return call.with_call(request, timeout=20, metadata=METADATA + metadata)


def metadata():
    answer, call = unary(b"metadata", (("x-asked", "this"),))
    fields = dict(call.initial_metadata()), dict(call.trailing_metadata())
    return answer, fields[0]["x-initial"], fields[1]["x-trailing"]


def fail():
    try:
        return unary(b"fail")
    except grpc.RpcError as error:
        return error.code().name, error.details(), dict(error.trailing_metadata())["x-detail"]


def both_streams():
    def requests():
        # The next message is sent after the answer to the one before has arrived.
        message = b"0"
        while message is not None:
            yield message
            message = answered.pop() if answered or wait() else None

    import queue

    results = queue.Queue()
    answered = []

    def wait():
        message = results.get()
        if message is None:
            return False
        answered.append(message)
        return True

    received = []
    for answer in channel.stream_stream("/test.Echo/BothStreams")(requests(), timeout=20):
        received.append(int(answer))
        results.put(b"%d" % (int(answer) + 1) if int(answer) < 9 else None)
    return received


def cancel():
    call = channel.unary_stream("/test.Echo/Hang")(b"", timeout=20)
    begun = next(call)
    call.cancel()
    return begun


def deadline():
    try:
        return list(channel.unary_stream("/test.Echo/Hang")(b"", timeout=0.5))
    except grpc.RpcError as error:
        return error.code().name


CALLS = {
    "unary": lambda: unary(b"hello")[0],
    "large": lambda: len(unary(b"x" * 3_000_000)[0]),
    "metadata": metadata,
    "fail": fail,
    "server_stream": lambda: sum(
        int(it) for it in channel.unary_stream("/test.Echo/ServerStream")(b"1000", timeout=20)
    ),
    "client_stream": lambda: len(
        channel.stream_unary("/test.Echo/ClientStream")(iter([b"x" * 1000] * 1000), timeout=20)
    ),
    "both_streams": both_streams,
    "cancel": cancel,
    "deadline": deadline,
}

try:
    print(CALLS[CALL]())
except grpc.RpcError as error:
    print(error.code().name)
