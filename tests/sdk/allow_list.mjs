// Deny all but an address and a network.

import { ALL_TRAFFIC, Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({
  network: {
    denyOut: [ALL_TRAFFIC],
    allowOut: ['1.1.1.1', '8.8.8.0/24'],
  },
})
await tell(sandbox)
await sandbox.kill()
