// Allow rules come before deny rules.

import { Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({
  network: {
    denyOut: ['203.0.113.0/24'],
    allowOut: ['203.0.113.10'],
  },
})
await tell(sandbox)
await sandbox.kill()
