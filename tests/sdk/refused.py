"""Configurations that the agent refuses, and what the one in force then is."""

from e2b import ALL_TRAFFIC, Sandbox
from tell import complaint, tell

sandbox = Sandbox.create(network={"deny_out": ["8.8.8.8"]})
tell(
    sandbox,
    deniedName=complaint(lambda: Sandbox.create(network={"deny_out": ["example.com"]})),
    nameAlone=complaint(lambda: Sandbox.create(network={"allow_out": ["api.example.com"]})),
    noAddress=complaint(
        lambda: sandbox.update_network({"allow_out": ["1.2.3"], "deny_out": [ALL_TRAFFIC]})
    ),
    wrongKey=complaint(lambda: Sandbox.create(api_key="e2b_0000")),
)
sandbox.kill()
