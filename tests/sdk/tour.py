"""What the demo shows: a sandbox's life as its user sees it."""

from e2b import ALL_TRAFFIC, Sandbox
from tell import tell

sandbox = Sandbox.create(
    network={
        "allow_out": ["1.1.1.1", "shop.example"],
        "deny_out": [ALL_TRAFFIC],
        "allow_public_traffic": False,
    },
)
tell(sandbox)

sandbox.update_network({"allow_internet_access": False})
tell(sandbox)

sandbox.kill()
tell(sandbox)
