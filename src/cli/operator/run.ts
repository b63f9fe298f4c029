import { AggregatorRegistry } from 'prom-client'
import { Scope } from '#base/async/scope.ts'
import { systemClock } from '#base/clock.ts'
import { createLog, type LogLevel } from '#base/log/log.ts'
import { Informers } from '#client/informer.ts'
import { createControllers } from '#controllers/controllers.ts'
import { Manager } from '#reconcile/manager.ts'
import { ReconcileMetrics } from '#reconcile/metrics.ts'
import { parsePort } from '../flags.ts'
import { serveHealth } from '../health.ts'
import { serviceAccountClient } from '../service-account.ts'
import { untilTold } from '../signals.ts'

export interface OperatorFlags {
  readonly server: string
  readonly loadBalancerPool: readonly string[]
  readonly agentServiceAccount: string
  readonly healthPort: string
  readonly logLevel: LogLevel
}

/** What of our control plane a network needs where the control plane is not ours. */
const controllers = ['service-controller', 'gateway-controller'] as const

/** The controllers under one service account: the chart's, whose rights are those of both and no more. */
export async function runOperator(flags: OperatorFlags): Promise<void> {
  const log = createLog('operator', flags.logLevel)
  const stopping = new AbortController()
  await using scope = new Scope(stopping.signal)
  void untilTold().then((why) => {
    log.info({ why }, 'stopping')
    stopping.abort(new DOMException(why, 'AbortError'))
  })
  const [namespace, name] = flags.agentServiceAccount.split('/')
  if (namespace === undefined || name === undefined)
    throw new RangeError(`--agent-service-account ${flags.agentServiceAccount}: use NAMESPACE/NAME`)
  using client = serviceAccountClient(flags.server, 'weft/operator')
  const metrics = new ReconcileMetrics()
  await using informers = new Informers({ client, clock: systemClock, log })
  const manager = new Manager({
    parts: createControllers({
      contextOf: (account) => ({
        name: account,
        client,
        informers,
        clock: systemClock,
        log: log.child({ part: account }),
        metrics,
      }),
      // Neither signs nor numbers: those controllers are not among the wanted.
      authority: { certificate: '', key: '' },
      clusterCidrs: [],
      loadBalancerPools: flags.loadBalancerPool,
      certificateReaders: [{ kind: 'ServiceAccount', name, namespace }],
      wanted: controllers,
    }),
    clock: systemClock,
    log,
  })
  scope.start((signal) => manager.run(signal))
  const health = () => {
    const states = Object.entries(manager.health())
    return {
      isWell: states.every(([, { state }]) => state === 'running'),
      words: states.map(([part, { state, reason = '' }]) => `${part} ${state} ${reason}`.trimEnd()).join('\n'),
    }
  }
  const port = parsePort(flags.healthPort, '--health-port')
  const text = () => AggregatorRegistry.aggregate([metrics.families()]).metrics()
  scope.start((signal) => serveHealth({ port, health, metrics: text }, signal))
  await scope.done()
}
