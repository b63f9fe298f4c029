import { readFileSync, statfsSync } from 'node:fs'
import { availableParallelism, release } from 'node:os'

/** What this machine has and how it fares; read anew where it changes. */
export interface Machine {
  readonly cpus: number
  readonly memoryBytes: number
  readonly machineId: string
  readonly bootId: string
  readonly systemUuid: string
  readonly kernelVersion: string
  readonly osImage: string
  readonly architecture: string
}

export interface Pressure {
  readonly memoryAvailableBytes: number
  readonly diskTotalBytes: number
  readonly diskAvailableBytes: number
  readonly inodesTotal: number
  readonly inodesFree: number
  readonly pidsMax: number
  readonly pidsUsed: number
}

/** Of the machine as a whole: nodes that share one share it too. */
export function readMachine(): Machine {
  const memory = memInfo()
  return {
    cpus: availableParallelism(),
    memoryBytes: (memory.MemTotal ?? 0) * 1024,
    machineId: readWord('/etc/machine-id'),
    bootId: readWord('/proc/sys/kernel/random/boot_id'),
    systemUuid: readWord('/sys/class/dmi/id/product_uuid') || readWord('/etc/machine-id'),
    kernelVersion: release(),
    osImage: osImage(),
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
  }
}

/** `dir`: where the node keeps pods and images. */
export function readPressure(dir: string): Pressure {
  const fs = statfsSync(dir)
  const [, , , threads = '0/0'] = readWord('/proc/loadavg').split(' ')
  return {
    memoryAvailableBytes: (memInfo().MemAvailable ?? 0) * 1024,
    diskTotalBytes: fs.blocks * fs.bsize,
    diskAvailableBytes: fs.bavail * fs.bsize,
    inodesTotal: fs.files,
    inodesFree: fs.ffree,
    pidsMax: Number(readWord('/proc/sys/kernel/pid_max')) || 32_768,
    pidsUsed: Number(threads.split('/')[1] ?? 0),
  }
}

function memInfo(): Record<string, number> {
  const rows = readFileSync('/proc/meminfo', 'utf8').split('\n')
  return Object.fromEntries(rows.map((row) => [row.slice(0, row.indexOf(':')), Number(/(\d+)/.exec(row)?.[1] ?? 0)]))
}

function osImage(): string {
  const found = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(readWord('/etc/os-release'))
  return found?.[1] ?? 'Linux'
}

/** Empty where the machine does not say. */
function readWord(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}
