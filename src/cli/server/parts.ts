import { MessageChannel, Worker } from 'node:worker_threads'
import { AggregatorRegistry } from 'prom-client'
import type { ApiHandler } from '#api/wire.ts'
import type { CertificateAndKey } from '#apiserver/pki/certificate.ts'
import type { LogLevel } from '#base/log/log.ts'
import { servePort } from '#client/port.ts'
import { controllerAccounts } from '#controllers/accounts.ts'
import type { MetricFamily } from '#reconcile/metrics.ts'
import { controllerIdentity, controllerManagerIdentity, schedulerIdentity } from './identities.ts'

export interface PartsOptions {
  /** The API, in process: every call of a part goes the whole way, under its own identity. */
  readonly handler: ApiHandler
  readonly tokenOf: ReadonlyMap<string, string>
  /** Signs nodes' certificates. */
  readonly authority: CertificateAndKey
  readonly clusterCidrs: readonly string[]
  readonly loadBalancerPools: readonly string[]
  /** Which controllers run, as `--controllers` says. */
  readonly controllers: readonly string[]
  readonly logLevel: LogLevel
}

/** What the thread is given; all of it can be copied. */
export interface PartsData extends Omit<PartsOptions, 'handler'> {
  readonly port: import('node:worker_threads').MessagePort
}

/** What the thread is told. It answers `metrics` with their text. */
export type ToParts = 'metrics' | 'stop'

const metricsMs = 1_000

export interface Parts {
  /** Rejects when the thread ends by itself: the process must not go on without its controllers. */
  readonly failed: Promise<never>
  /** What the thread counts, in the text format; empty when it does not answer in time. */
  metrics(): Promise<string>
  stop(): Promise<void>
}

/** Everybody who calls the API from inside. */
export const identitiesOfParts = (): string[] => [
  schedulerIdentity,
  controllerManagerIdentity,
  ...controllerAccounts.map(controllerIdentity),
]

/** Controllers and scheduler in a thread of their own: a slow one never holds up a request. */
export function startParts({ handler, ...data }: PartsOptions): Parts {
  const { port1, port2 } = new MessageChannel()
  const stopServing = servePort(port1, handler)
  const workerData: PartsData = { ...data, port: port2 }
  const worker = new Worker(new URL('./parts-thread.ts', import.meta.url), {
    workerData,
    transferList: [port2],
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
  })
  const ended = new Promise<number>((resolve) => worker.once('exit', resolve))
  const failed = new Promise<never>((_, reject) => {
    worker.once('error', reject)
    worker.once('exit', (code) => reject(new Error(`the thread of the controllers ended with ${code}`)))
  })
  // Stopping ends the thread too; then nobody waits for this any more.
  failed.catch(() => {})
  return {
    failed,
    async metrics() {
      const { promise, resolve } = Promise.withResolvers<MetricFamily[]>()
      worker.once('message', resolve)
      worker.postMessage('metrics' satisfies ToParts)
      // A thread that is busy or gone must not hold up whoever scrapes the server.
      const late = setTimeout(() => resolve([]), metricsMs)
      const families = await promise
      clearTimeout(late)
      worker.off('message', resolve)
      return AggregatorRegistry.aggregate([families]).metrics()
    },
    async stop() {
      worker.postMessage('stop' satisfies ToParts)
      await ended
      stopServing()
      port1.close()
    },
  }
}
