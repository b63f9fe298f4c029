import type { Runtime } from './runtime.ts'

/** Told of each call to the runtime. */
export type RuntimeObserver = (operation: string, seconds: number, outcome: 'success' | 'fail') => void

/** Upstream's names of the operations, which dashboards know. */
const operations: Readonly<Partial<Record<keyof Runtime, string>>> = {
  runSandbox: 'run_podsandbox',
  stopSandbox: 'stop_podsandbox',
  removeSandbox: 'remove_podsandbox',
  listSandboxes: 'list_podsandbox',
  sandboxStatus: 'podsandbox_status',
  reopenLog: 'reopen_container_log',
  containerStats: 'list_container_stats',
  execUrl: 'exec',
  attachUrl: 'attach',
  portForwardUrl: 'port_forward',
}

const snakeCase = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** The same runtime, with somebody who looks on. `now` in milliseconds. */
export function observeRuntime<R extends Runtime>(runtime: R, observe: RuntimeObserver, now: () => number): R {
  return new Proxy(runtime, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target)
      if (typeof member !== 'function' || typeof name !== 'string') return member
      const operation = operations[name as keyof Runtime] ?? snakeCase(name)
      return async (...args: unknown[]) => {
        const start = now()
        let outcome: 'success' | 'fail' = 'fail'
        try {
          const result: unknown = await Reflect.apply(member, target, args)
          outcome = 'success'
          return result
        } finally {
          observe(operation, (now() - start) / 1000, outcome)
        }
      }
    },
  })
}
