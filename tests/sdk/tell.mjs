// How a program speaks with the test that runs it: a line of JSON out, then "go" in.

import { createInterface } from 'node:readline'

// Where the service in the sandbox listens.
const PORT = 8080

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

// Says what the sandbox is and more, and waits until the test has looked at the wire.
export async function tell(sandbox, facts = {}) {
  const known = {
    sandboxID: sandbox.sandboxId,
    host: sandbox.getHost(PORT),
    token: sandbox.trafficAccessToken ?? null,
  }
  console.log(JSON.stringify({ ...known, ...facts }))
  const { value } = await lines.next()
  if (value !== 'go') {
    throw new Error('the test does not want to go on')
  }
}

// The class and the message of the error in which an attempt ends; null if it does not.
export async function complaint(attempt) {
  try {
    await attempt()
  } catch (error) {
    return `${error.name}: ${error.message}`
  }
  return null
}
