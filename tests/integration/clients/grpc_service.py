"""A gRPC service: python3 grpc_service.py PORT [CERTIFICATE KEY]. Reports what happens on stdout."""

import sys
from concurrent import futures

import grpc


def report(text):
    print(text, flush=True)


def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("x-detail", "why"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more of it")
    if request == b"metadata":
        context.send_initial_metadata((("x-initial", "first"),))
        context.set_trailing_metadata((("x-trailing", "last"),))
        return dict(context.invocation_metadata())["x-asked"].encode()
    return request


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    return b"".join(requests)


def both_streams(requests, context):
    for request in requests:
        yield request


def hang(request, context):
    context.add_callback(lambda: report("ended"))
    report("remaining %s" % (context.time_remaining() is not None))
    yield b"begun"
    while context.is_active():
        context._state.condition.acquire()
        context._state.condition.wait(0.1)
        context._state.condition.release()


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "BothStreams": grpc.stream_stream_rpc_method_handler(both_streams),
    "Hang": grpc.unary_stream_rpc_method_handler(hang),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", METHODS),))
address = "[::]:" + sys.argv[1]
if len(sys.argv) > 2:
    certificate, key = (open(file, "rb").read() for file in sys.argv[2:4])
    server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
else:
    server.add_insecure_port(address)
server.start()
report("listening")
server.wait_for_termination()
