import { parentPort, workerData } from 'node:worker_threads'
import { openMap } from '#datapath/load.ts'

/** A thread that puts entries into a map and takes them out again, as packets would, until it is told to stop. */
export interface Churn {
  readonly pinDir: string
  readonly map: string
  /** Keys from here on, so many. */
  readonly first: number
  readonly count: number
  readonly stop: SharedArrayBuffer
}

const { pinDir, map: name, first, count, stop } = workerData as Churn
const told = new Int32Array(stop)
const map = openMap(pinDir, name)
const key = Buffer.alloc(map.keySize)
const value = Buffer.alloc(map.valueSize)
parentPort?.postMessage('begun')
for (let round = 0; Atomics.load(told, 0) === 0; round++) {
  for (let i = 0; i < count; i++) {
    key.writeUInt32LE(first + i)
    if (round % 2 === 0) map.update(key, value)
    else map.delete(key)
  }
}
map[Symbol.dispose]()
