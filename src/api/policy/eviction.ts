import type { Eviction } from '../gen/policy-v1.ts'
import { evictions } from '../gen/resources.ts'
import { defineReview } from '../meta/define.ts'

/** Served below a pod only: `pods/eviction`. */
export const eviction = defineReview<Eviction>({
  resource: evictions,
  message: 'policy/v1.Eviction',
  description: 'Deletes a pod if its disruption budget allows it.',
})
