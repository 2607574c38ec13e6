"""The network of a running sandbox changes. Every update replaces all of the one before."""

from e2b import ALL_TRAFFIC, Sandbox
from tell import tell

sandbox = Sandbox.create()
tell(sandbox)

sandbox.update_network({"allow_out": ["1.1.1.1"], "deny_out": [ALL_TRAFFIC]})
tell(sandbox)

sandbox.update_network({"deny_out": ["1.1.1.1"]})
tell(sandbox)

sandbox.update_network({"allow_internet_access": False})
tell(sandbox)

Sandbox.update_network(sandbox.sandbox_id, {})
tell(sandbox)
sandbox.kill()
