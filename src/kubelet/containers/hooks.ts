import type { Container, LifecycleHandler } from '#api/gen/core-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import { askHttp, connectTcp, portOf } from '../probes/ask.ts'
import { detailOf, type Runtime } from '../runtime/runtime.ts'

export interface HookTarget {
  readonly containerId: string
  readonly container: Container
  /** The pod's address, or the node's. */
  readonly ip: string
}

/** Runs a lifecycle hook; `timeoutMs` bounds it where it has no end of its own. Throws with upstream's words. */
export async function runHook(
  runtime: Runtime,
  clock: Clock,
  handler: LifecycleHandler,
  { containerId, container, ip }: HookTarget,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  if (handler.exec) {
    const command = handler.exec.command ?? []
    const result = await runtime.execSync(containerId, command, Math.ceil(timeoutMs / 1000), signal).catch((error) => {
      throw new Error(`Exec lifecycle hook (${JSON.stringify(command)}) failed: ${detailOf(error)}`, { cause: error })
    })
    if (result.exitCode !== 0) {
      const output = Buffer.from(result.stderr.length > 0 ? result.stderr : result.stdout)
        .toString('utf8')
        .slice(0, 1024)
      throw new Error(`command '${command.join(' ')}' exited with ${result.exitCode}: ${output}`)
    }
    return
  }
  if (handler.httpGet) {
    const answer = await askHttp(handler.httpGet, container, ip, { timeoutMs, signal })
    if (!answer.ok) throw new Error(answer.message)
    return
  }
  if (handler.tcpSocket) {
    const { host, port } = handler.tcpSocket
    const answer = await connectTcp(host || ip, portOf(port, container), { timeoutMs, signal })
    if (!answer.ok) throw new Error(answer.message)
    return
  }
  if (handler.sleep) await delay(Math.min(timeoutMs, handler.sleep.seconds * 1000), signal, clock)
}
