import type { BpfMap } from '#kernel/bpf/map.ts'
import type { Batch } from './bytes.ts'

/** As much of a map as Services use, so that a test can fill one up. */
export type ServiceMap = Pick<BpfMap, 'entriesMax' | 'lookup' | 'update' | 'updateBatch' | 'delete' | 'entries'>

/** Below this a few calls are as quick as a batch. */
const singlesMax = 8

export function writeBatch(map: ServiceMap, batch: Batch): void {
  if (batch.count > singlesMax) map.updateBatch(batch.allKeys(), batch.allValues(), batch.count)
  else for (let i = 0; i < batch.count; i++) map.update(batch.key(i), batch.value(i))
}
