import type { Route } from '../local/local.ts'
import { type FlowQuery, queryFields } from './filter.ts'
import type { Flows } from './flows.ts'
import { flowJson, formatFlow } from './present.ts'
import type { Flow } from './record.ts'

/**
 * `/v1/flows`: the newest `last` that match, and with `follow=true` what comes, requests that a Gateway answers among it. Each value is `{time, text, json}`, or
 * `{missed}` where the asker was too slow.
 */
export const flowsRoute = (flows: Flows): Route =>
  async function* (query, signal) {
    const wanted: FlowQuery = Object.fromEntries(
      queryFields.flatMap((field) => (query.has(field) ? [[field, query.getAll(field)]] : [])),
    )
    const last = Number(query.get('last') ?? 20)
    if (!Number.isSafeInteger(last) || last < 1)
      throw new RangeError(`last "${query.get('last')}" is no whole number above 0`)
    const recent = flows.recent(wanted, { last, sinceMs: Number(query.get('since') ?? 0) })
    const { end } = flows
    yield* recent.map(line)
    if (query.get('follow') !== 'true') return
    for await (const flow of flows.followAll(wanted, end, signal)) yield 'missed' in flow ? flow : line(flow)
  }

const line = (flow: Flow): object => ({ time: flow.time, text: formatFlow(flow), json: flowJson(flow) })
