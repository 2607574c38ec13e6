// Deny all but names and an address.

import { ALL_TRAFFIC, Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({
  network: {
    allowOut: ['api.example.com', '*.github.com', '203.0.113.10'],
    denyOut: [ALL_TRAFFIC],
  },
})
await tell(sandbox)
await sandbox.kill()
