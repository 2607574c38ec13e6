// Secrets are created, updated, listed and destroyed, and a sandbox's rules refer to one.

import { ALL_TRAFFIC, Sandbox, Secret } from 'e2b'
import { complaint, tell } from './tell.mjs'

const NAME = 'sdk-javascript'

const made = await Secret.create(NAME, 'hush-hush', { metadata: { owner: 'web' } })
const updated = await Secret.update(NAME, 'hush-hush-2')
const info = await Secret.getInfo(made.secretId)
const listed = (await Secret.list({ limit: 100 }).nextItems()).map((secret) => secret.name)
const sandbox = await Sandbox.create({
  network: {
    allowOut: ({ rules }) => [...rules.keys()],
    denyOut: [ALL_TRAFFIC],
    rules: {
      'api.example.com': [
        { transform: { headers: { Authorization: `Bearer \${e2b.secrets.${NAME}}` } } },
      ],
      'github.com': [{}],
    },
  },
})
const { network } = await sandbox.getInfo()
await tell(sandbox, {
  names: [made.name, info.name],
  versions: [made.version, updated.version, info.version],
  metadata: info.metadata,
  listed: listed.includes(NAME),
  exists: await Secret.exists(NAME),
  header: network.rules['api.example.com'][0].transform.headers.Authorization,
  wrong: await complaint(() => Sandbox.create({ network: { rules: { '*': [{}] } } })),
})
await sandbox.updateNetwork({ allowOut: ['8.8.8.8'], denyOut: [ALL_TRAFFIC] })
await tell(sandbox, {
  rules: (await sandbox.getInfo()).network?.rules !== undefined,
  destroyed: [await Secret.destroy(NAME), await Secret.destroy(NAME)],
  exists: await Secret.exists(NAME),
  asking: await complaint(() => Secret.getInfo(NAME)),
})
await sandbox.kill()
