import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { badRequest, type FieldError, fieldError, internalError, invalid, StatusError } from '#api/meta/status.ts'
import type { SubresourceHandler } from '../step.ts'
import { chooseContainer } from './container.ts'
import { type KubeletAddress, type Kubelets, kubeletOf, podNamed, unreachable } from './kubelet.ts'

/** Passed on as they are; upstream's PodLogOptions. */
const passed = [
  'follow',
  'previous',
  'sinceSeconds',
  'sinceTime',
  'timestamps',
  'tailLines',
  'limitBytes',
  'stream',
] as const
/** How much of a kubelet's error is shown. */
const errorBytesMax = 50_000

/** GET pods/{name}/log: the kubelet's text, chunk by chunk as it comes, until it ends or the caller goes. */
export function logHandler(kubelets: Kubelets): SubresourceHandler {
  return async ({ registry, request: { signal }, attributes, query }) => {
    checkOptions(query, attributes.name)
    const pod = podNamed(registry, attributes.namespace, attributes.name)
    const container = chooseContainer(pod, query.get('container') ?? undefined)
    // A pod that nobody has begun to run has said nothing yet.
    if (!pod.spec.nodeName) return { status: 200, headers: textHeaders, body: new Uint8Array() }
    const address = kubeletOf(registry, pod)
    const wanted = new URLSearchParams()
    for (const name of passed) {
      const value = query.get(name)
      if (value !== null) wanted.set(name, value)
    }
    const { namespace, name } = pod.metadata
    const path = `/containerLogs/${namespace}/${name}/${encodeURIComponent(container)}?${wanted}`
    const skipVerify = isTrue(query.get('insecureSkipTLSVerifyBackend'))
    const answer = await get(kubelets, address, path, signal, skipVerify)
    if (answer.statusCode !== 200) throw await failureOf(answer)
    return { status: 200, headers: textHeaders, body: untilAborted(answer, signal) }
  }
}

const textHeaders = { 'content-type': 'text/plain' }
const isTrue = (text: string | null): boolean => text === 'true' || text === '1'

function checkOptions(query: URLSearchParams, name: string): void {
  const errors: FieldError[] = []
  const whole = (field: string, least: number, words: string): void => {
    const text = query.get(field)
    if (text === null || text === '') return
    if (!/^[+-]?\d+$/.test(text))
      throw badRequest(`unable to decode query: ${field}: invalid number ${JSON.stringify(text)}`)
    if (Number(text) < least) errors.push(fieldError.invalid(field, Number(text), words))
  }
  whole('tailLines', 0, 'must be greater than or equal to 0')
  whole('limitBytes', 1, 'must be greater than 0')
  whole('sinceSeconds', 1, 'must be greater than 0')
  if (query.get('sinceSeconds') && query.get('sinceTime')) {
    errors.push(fieldError.forbidden('', 'at most one of `sinceTime` or `sinceSeconds` may be specified'))
  }
  if (errors.length > 0) throw invalid('', 'PodLogOptions', name, errors)
}

function get(
  kubelets: Kubelets,
  { host, port }: KubeletAddress,
  path: string,
  signal: AbortSignal,
  skipVerify: boolean,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const trust = skipVerify ? { rejectUnauthorized: false, agent: false } : { agent: kubelets.agent }
    const call = request({ ...kubelets.tls, ...trust, host, port, path, method: 'GET', signal }, (answer) => {
      // The agent's timeout is for the answer to begin: a followed log may be silent for days.
      call.setTimeout(0)
      resolve(answer)
    })
    call.once('timeout', () => call.destroy(new Error('no answer')))
    call.once('error', (error) => reject(unreachable({ host, port }, error)))
    call.end()
  })
}

/** A caller that goes ends the log; a kubelet that goes breaks it. */
async function* untilAborted(answer: IncomingMessage, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
  try {
    yield* answer as AsyncIterable<Buffer>
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    answer.destroy()
  }
}

/** A kubelet's refusal with its own words, as upstream turns it into a Status. */
async function failureOf(answer: IncomingMessage): Promise<StatusError> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes >= errorBytesMax) break
  }
  const text = Buffer.concat(chunks).toString('utf8', 0, errorBytesMax).trim()
  const code = answer.statusCode ?? 500
  if (code === 400) return badRequest(text)
  if (code >= 500) return internalError(text)
  const reason = { 401: 'Unauthorized', 403: 'Forbidden', 404: 'NotFound' }[code] ?? 'Unknown'
  return new StatusError({ status: 'Failure', code, reason, message: text })
}
