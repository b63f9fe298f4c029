import * as grpc from '@grpc/grpc-js'
import type { Answer, AskOptions } from './ask.ts'

/** HealthCheckResponse.ServingStatus of grpc.health.v1. */
const serving = 1

/** Asks grpc.health.v1.Health/Check, whose two messages have one field each: no schema is worth loading for them. */
export function askGrpc(
  host: string,
  port: number,
  service: string,
  { timeoutMs, signal }: AskOptions,
): Promise<Answer> {
  const literal = host.includes(':') ? `[${host}]` : host
  const client = new grpc.Client(`${literal}:${port}`, grpc.credentials.createInsecure(), {
    'grpc.enable_retries': 0,
    'grpc.primary_user_agent': 'kube-probe/1.36',
  })
  return new Promise<Answer>((resolve) => {
    const abort = () => call.cancel()
    const call = client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      (name: string) => encodeRequest(name),
      (bytes: Buffer) => decodeStatus(bytes),
      service,
      new grpc.Metadata(),
      { deadline: Date.now() + timeoutMs },
      (error, status) => {
        signal.removeEventListener('abort', abort)
        if (error === null)
          return resolve(
            status === serving
              ? { ok: true, message: '' }
              : { ok: false, message: `service unhealthy (responded with "${statusWords[status ?? 0] ?? status}")` },
          )
        if (error.code === grpc.status.UNIMPLEMENTED)
          return resolve({
            ok: false,
            message:
              'server does not implement the grpc health protocol (grpc.health.v1.Health): rpc error: code = Unimplemented',
          })
        if (error.code === grpc.status.DEADLINE_EXCEEDED)
          return resolve({ ok: false, message: `timeout: health rpc did not complete within ${timeoutMs / 1000}s` })
        resolve({ ok: false, message: `error: health rpc failed: ${error.details}` })
      },
    )
    signal.addEventListener('abort', abort, { once: true })
  }).finally(() => client.close())
}

const statusWords = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'] as const

/** `string service = 1`; absent when empty. Names longer than 127 bytes take a second byte of length. */
function encodeRequest(service: string): Buffer {
  const text = Buffer.from(service)
  if (text.length === 0) return Buffer.alloc(0)
  const length = text.length < 128 ? [text.length] : [(text.length & 0x7f) | 0x80, text.length >> 7]
  return Buffer.concat([Buffer.from([0x0a, ...length]), text])
}

/** `ServingStatus status = 1`; an absent field is 0, unknown. */
const decodeStatus = (bytes: Buffer): number => (bytes[0] === 0x08 ? (bytes[1] ?? 0) : 0)
