import { parentPort, workerData } from 'node:worker_threads'
import { Program } from '#kernel/bpf/program.ts'
import { Namespace } from '#kernel/netns.ts'

/** A thread that hands packets to a program, each at the moment at which its twin hands over its own. */
export interface AtOnce {
  readonly program: string
  readonly namespace: string
  readonly ifindex: number
  /** Frames, one after the other. */
  readonly frames: SharedArrayBuffer
  readonly frameLength: number
  readonly count: number
  /** Each twin says here how far it is. */
  readonly turns: SharedArrayBuffer
  readonly self: 0 | 1
}

const { program: path, namespace, ifindex, frames, frameLength, count, turns, self } = workerData as AtOnce
const program = Program.openPin(path)
if (program === undefined) throw new Error(`nothing is pinned at ${path}`)
const place = Namespace.open(namespace)
const turn = new Int32Array(turns)
const context = Buffer.alloc(192)
context.writeUInt32LE(ifindex, 40)
const verdicts = place.within(() =>
  Array.from({ length: count }, (_, i) => {
    const frame = new Uint8Array(frames, i * frameLength, frameLength).slice()
    Atomics.add(turn, self, 1)
    while (Atomics.load(turn, 1 - self) < i + 1);
    return program.testRun(frame, { context }).verdict
  }),
)
place[Symbol.dispose]()
program[Symbol.dispose]()
parentPort?.postMessage(verdicts)
