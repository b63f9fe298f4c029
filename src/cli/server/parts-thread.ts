import { parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '#base/clock.ts'
import { createLog } from '#base/log/log.ts'
import { createDirectClient } from '#client/direct.ts'
import { Informers } from '#client/informer.ts'
import { observeRequests } from '#client/observe.ts'
import { createPortHandler } from '#client/port.ts'
import { createControllers } from '#controllers/controllers.ts'
import { Manager } from '#reconcile/manager.ts'
import { type MetricFamily, ReconcileMetrics } from '#reconcile/metrics.ts'
import { scheduler } from '#scheduler/scheduler.ts'
import { controllerIdentity, controllerManagerIdentity, schedulerIdentity } from './identities.ts'
import type { PartsData, ToParts } from './parts.ts'

/** The thread of controllers and scheduler: one connection to the API, one set of copies, an identity for each part. */
const { port, tokenOf, authority, clusterCidrs, loadBalancerPools, controllers, logLevel } = workerData as PartsData
const handler = createPortHandler(port)
const log = createLog('controllers', logLevel)
const metrics = new ReconcileMetrics()
const counted = observeRequests(handler, (method, status, seconds) => {
  const code = status === undefined ? '<error>' : String(status)
  metrics.count('rest_client_requests_total', 'Requests to the API server, by method and code', { method, code })
  metrics.observe('rest_client_request_duration_seconds', 'Time until the head of an answer', { verb: method }, seconds)
})
const clientOf = (identity: string) => createDirectClient(counted, tokenOf.get(identity) ?? '', `weft/${identity}`)

await using informers = new Informers({ client: clientOf(controllerManagerIdentity), clock: systemClock, log })
const contextOf = (name: string, identity: string) => ({
  name,
  client: clientOf(identity),
  informers,
  clock: systemClock,
  log: log.child({ part: name }),
  metrics,
})

const manager = new Manager({
  parts: [
    ...createControllers({
      contextOf: (name) => contextOf(name, controllerIdentity(name)),
      authority,
      clusterCidrs,
      loadBalancerPools,
      wanted: controllers,
    }),
    scheduler(contextOf('default-scheduler', schedulerIdentity)),
  ],
  clock: systemClock,
  log,
})
/** What is counted here; the main thread shows it. */
const families = (): MetricFamily[] => [
  ...metrics.families(),
  {
    name: 'weft_part_running',
    help: 'Whether a controller or the scheduler runs: 0 while it has stopped, for want of a right or after a failure',
    type: 'gauge',
    aggregator: 'sum',
    values: Object.entries(manager.health()).map(([part, { state }]) => ({
      value: state === 'running' ? 1 : 0,
      labels: { part },
    })),
  },
]

const stop = new AbortController()
parentPort?.on('message', (message: ToParts) => {
  if (message === 'stop') stop.abort(new DOMException('the server is stopping', 'AbortError'))
  else parentPort?.postMessage(families())
})
await manager.run(stop.signal)
port.close()
parentPort?.close()
