"""Secrets are created, updated, listed and destroyed, and a sandbox's rules refer to one."""

from e2b import ALL_TRAFFIC, Sandbox, Secret
from tell import complaint, tell

NAME = "sdk-python"

made = Secret.create(NAME, "hush-hush", metadata={"owner": "web"})
updated = Secret.update(NAME, "hush-hush-2")
info = Secret.get_info(made.secret_id)
listed = [secret.name for secret in Secret.list(limit=100).next_items()]
sandbox = Sandbox.create(
    network={
        "allow_out": lambda ctx: list(ctx.rules.keys()),
        "deny_out": [ALL_TRAFFIC],
        "rules": {
            "api.example.com": [
                {"transform": {"headers": {"Authorization": f"Bearer ${{e2b.secrets.{NAME}}}"}}}
            ],
            "github.com": [{}],
        },
    }
)
rules = sandbox.get_info().network["rules"]
tell(
    sandbox,
    names=[made.name, info.name],
    versions=[made.version, updated.version, info.version],
    metadata=info.metadata,
    listed=NAME in listed,
    exists=Secret.exists(NAME),
    header=rules["api.example.com"][0]["transform"]["headers"]["Authorization"],
    wrong=complaint(lambda: Sandbox.create(network={"rules": {"*": [{}]}})),
)
sandbox.update_network({"allow_out": ["8.8.8.8"], "deny_out": [ALL_TRAFFIC]})
tell(
    sandbox,
    rules="rules" in (sandbox.get_info().network or {}),
    destroyed=[Secret.destroy(NAME), Secret.destroy(NAME)],
    exists=Secret.exists(NAME),
    asking=complaint(lambda: Secret.get_info(NAME)),
)
sandbox.kill()
