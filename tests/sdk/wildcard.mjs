// Deny all but the names below a domain.

import { ALL_TRAFFIC, Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({
  network: {
    allowOut: ['*.mydomain.com'],
    denyOut: [ALL_TRAFFIC],
  },
})
await tell(sandbox)
await sandbox.kill()
