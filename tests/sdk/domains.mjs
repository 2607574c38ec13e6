// Deny all but a name, the list of all traffic given as a function.

import { Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({
  network: {
    allowOut: ['api.example.com'],
    denyOut: ({ allTraffic }) => [allTraffic],
  },
})
await tell(sandbox)
await sandbox.kill()
