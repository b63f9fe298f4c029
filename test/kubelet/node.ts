import { createPrivateKey } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import WebSocket from 'ws'
import type { TokenRequest } from '#api/gen/authentication-v1.ts'
import type { SubjectAccessReview } from '#api/gen/authorization-v1.ts'
import type { Container, Pod } from '#api/gen/core-v1.ts'
import { namespaces, pods } from '#api/gen/resources.ts'
import { type CertificateAndKey, createAuthority, createLeaf } from '#apiserver/pki/certificate.ts'
import { eventually } from '#base/async/eventually.ts'
import { systemClock } from '#base/clock.ts'
import { createLog } from '#base/log/log.ts'
import type { Draft } from '#client/client.ts'
import { FakeClient } from '#client/fake.ts'
import { createKubelet } from '#kubelet/kubelet.ts'
import { NodeCertificates } from '#kubelet/node/certificates.ts'
import { freePort } from '../free-port.ts'
import type { TestContainerd } from './containerd.ts'

/** A kubelet on the test's containerd, with the API in memory and its own API on 127.0.0.1. */
export interface TestNode extends AsyncDisposable {
  readonly client: FakeClient
  readonly port: number
  /** How the API server shows itself to the kubelet. */
  readonly caller: CertificateAndKey
  readonly authority: CertificateAndKey
  /** Ends the kubelet as kill would, and starts another. */
  restart(): Promise<void>
  create(name: string, spec: Partial<Pod['spec']>): Promise<Pod>
  get(name: string): Promise<Pod>
  until(name: string, holds: (pod: Pod) => boolean, withinMs?: number): Promise<Pod>
  /** Deletes the pod and waits for its end. */
  remove(name: string, graceSeconds?: number): Promise<void>
  fetch(path: string, options?: { readonly anonymous?: boolean }): Promise<{ status: number; body: string }>
  socket(path: string, protocols: string[]): WebSocket
  /** Asks for a switch of protocols; resolves with the answer's headers and the connection. */
  upgrade(
    method: string,
    path: string,
    headers: Record<string, string>,
  ): Promise<{ headers: IncomingHttpHeaders; socket: Duplex; head: Buffer }>
}

export async function startNode(containerd: TestContainerd): Promise<TestNode> {
  const now = Date.now()
  const authority = await createAuthority('test', now)
  const serving = await createLeaf(authority, {
    subject: { commonName: 'system:node:node-1', organizations: ['system:nodes'] },
    usage: 'server',
    names: ['127.0.0.1'],
    now,
  })
  const caller = await createLeaf(authority, {
    subject: { commonName: 'kube-apiserver-kubelet-client' },
    usage: 'client',
    now,
  })
  const dataDir = join(containerd.dir, 'kubelet')
  const pki = join(dataDir, 'pki')
  mkdirSync(pki, { recursive: true })
  const key = createPrivateKey(serving.key).export({ format: 'pem', type: 'pkcs8' })
  writeFileSync(join(pki, 'kubelet-server.pem'), `${serving.certificate.trimEnd()}\n${key}`)

  const client = new FakeClient({ clock: systemClock })
  let tokens = 0
  client.answer(({ resource, body }) => {
    if (resource !== 'subjectaccessreviews.authorization.k8s.io') return undefined
    const { spec } = body as SubjectAccessReview
    return { ...body, status: { allowed: spec.user === 'kube-apiserver-kubelet-client' } }
  })
  client.answer(({ resource, subresource, body }) => {
    if (resource !== 'serviceaccounts' || subresource !== 'token') return undefined
    const { spec } = body as TokenRequest
    // 601 stands for two seconds: nobody waits ten minutes for a test.
    const short = spec.expirationSeconds === 601
    const lifeMs = short ? 2_000 : (spec.expirationSeconds ?? 3600) * 1000
    const token = short ? `token-${++tokens}` : `token-of-${spec.boundObjectRef?.name}`
    return { ...body, status: { token, expirationTimestamp: new Date(Date.now() + lifeMs).toISOString() } }
  })
  await client.create(namespaces, { metadata: { name: 'default' } })

  const port = await freePort()
  const log = createLog('kubelet', process.env.DEBUG ? 'debug' : 'warn')
  let stop = new AbortController()
  const begin = () => {
    stop = new AbortController()
    const certificates = new NodeCertificates({
      dir: pki,
      nodeName: 'node-1',
      addresses: ['127.0.0.1'],
      clock: systemClock,
      log,
    })
    return createKubelet({
      nodeName: 'node-1',
      addresses: ['127.0.0.1'],
      client,
      dataDir,
      runtime: { socket: containerd.socket },
      cgroup: containerd.cgroup,
      dnsServers: ['10.96.0.10'],
      port,
      server: { host: '127.0.0.1', clientAuthority: authority.certificate, certificates },
      log,
    }).run(stop.signal)
  }
  let running = begin()
  const tls = { cert: caller.certificate, key: caller.key, ca: authority.certificate }
  const node: TestNode = {
    client,
    port,
    caller,
    authority,
    async restart() {
      stop.abort()
      await running
      running = begin()
    },
    create(name, spec) {
      const draft = {
        metadata: { name, namespace: 'default', labels: { app: name } },
        spec: { nodeName: 'node-1', terminationGracePeriodSeconds: 1, restartPolicy: 'Always', ...spec },
      }
      return client.create<Pod>(pods, draft as Draft<Pod>)
    },
    get: (name) => client.get(pods, { namespace: 'default', name }),
    until: (name, holds, withinMs = 15_000) =>
      eventually(
        async () => {
          const pod = await node.get(name)
          if (holds(pod)) return pod
          throw new Error(`pod ${name} is not there yet: ${JSON.stringify(pod.status)}`)
        },
        { withinMs, pauseMs: 5 },
      ) as Promise<Pod>,
    async remove(name, graceSeconds = 1) {
      await client.delete(pods, { namespace: 'default', name }, { gracePeriodSeconds: graceSeconds })
      await eventually(async () => !(await client.list(pods)).items.some((p) => p.metadata.name === name), {
        withinMs: 15_000,
      })
    },
    fetch: (path, { anonymous = false } = {}) =>
      new Promise((resolve, reject) => {
        const request = httpsRequest(
          { host: '127.0.0.1', port, path, agent: false, ...(anonymous ? { ca: authority.certificate } : tls) },
          (response) => {
            let body = ''
            response.setEncoding('utf8').on('data', (text: string) => {
              body += text
            })
            response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
          },
        )
        request.on('error', reject).end()
      }),
    socket: (path, protocols) => new WebSocket(`wss://127.0.0.1:${port}${path}`, protocols, tls),
    upgrade: (method, path, headers) =>
      new Promise((resolve, reject) => {
        const request = httpsRequest({ host: '127.0.0.1', port, path, method, headers, agent: false, ...tls })
        request.on('upgrade', (response, socket, head) => resolve({ headers: response.headers, socket, head }))
        request.on('response', (response) => reject(new Error(`answered with ${response.statusCode}`)))
        request.on('error', reject).end()
      }),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await running
    },
  }
  return node
}

/** A container of the demo's busybox that runs a script. */
export const busybox = (name: string, script: string, more: Partial<Container> = {}): Container => ({
  name,
  image: 'weft.local/busybox:1',
  imagePullPolicy: 'IfNotPresent',
  command: ['sh', '-c', script],
  resources: {},
  ...more,
})

export interface ChannelOutput {
  readonly stdout: string
  readonly stderr: string
  readonly error: string
}

/** Everything that a socket of channels says until it closes, channel by channel. */
export function collectChannels(socket: WebSocket): Promise<string[]> {
  const out: string[] = []
  return new Promise((resolve, reject) => {
    socket.on('message', (data: Buffer) => {
      const number = data.readUInt8(0)
      out[number] = (out[number] ?? '') + data.subarray(1).toString('latin1')
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(out))
  })
}

/** The same of exec and attach, by name. */
export async function collect(socket: WebSocket): Promise<ChannelOutput> {
  const [, stdout = '', stderr = '', error = ''] = await collectChannels(socket)
  return { stdout, stderr, error }
}

/** A client's side of a WebSocket, reduced to what a tunnel of bytes needs: binary frames, masked with zeros. */
export function tunnelOver(socket: Duplex, head: Buffer): Duplex {
  let pending = head
  const take = (stream: Duplex) => {
    while (pending.length >= 2) {
      const short = (pending[1] ?? 0) & 0x7f
      const at = short === 126 ? 4 : 2
      const length = short === 126 ? pending.readUInt16BE(2) : short
      if (pending.length < at + length) return
      if ((pending[0] ?? 0) === 0x82) stream.push(pending.subarray(at, at + length))
      if ((pending[0] ?? 0) === 0x88) stream.push(null)
      pending = pending.subarray(at + length)
    }
  }
  const duplex = new Duplex({
    read() {},
    write(chunk: Buffer, _, done) {
      const header = Buffer.alloc(8)
      header[0] = 0x82
      header[1] = 0x80 | 126
      header.writeUInt16BE(chunk.length, 2)
      socket.write(Buffer.concat([header, chunk]), () => done())
    },
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  socket.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk])
    take(duplex)
  })
  take(duplex)
  return duplex
}
