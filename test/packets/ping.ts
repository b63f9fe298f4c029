import { execFileSync } from 'node:child_process'
import type { TestPod } from './topology.ts'

interface PingOptions {
  /** Bytes of data. */
  readonly size: number
  readonly count?: number
  readonly withinSeconds?: number
}

/** What busybox's ping in the pod says when it has ended. Throws where nothing was answered. */
export function ping(pod: TestPod, address: string, { size, count = 1, withinSeconds = 1 }: PingOptions): string {
  const family = address.includes(':') ? '-6' : '-4'
  const flags = ['-c', `${count}`, '-i', '0.2', '-W', `${withinSeconds}`, '-s', `${size}`]
  return execFileSync('ip', ['netns', 'exec', pod.name, 'busybox', 'ping', family, ...flags, address], {
    encoding: 'utf8',
  })
}
