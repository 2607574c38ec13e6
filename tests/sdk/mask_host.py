"""A sandbox whose services see another Host."""

from e2b import Sandbox
from tell import tell

sandbox = Sandbox.create(network={"mask_request_host": "localhost:${PORT}"})
tell(sandbox)
sandbox.kill()
