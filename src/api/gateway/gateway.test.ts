import { readFileSync } from 'node:fs'
import test from 'ava'
import { definitionRuleErrors, digestOf } from '../cel/schema/definition-rules.ts'
import type { CustomResourceDefinition } from '../gen/apiextensions-v1.ts'
import type { JsonSchema } from '../schema/json-schema.ts'
import { structuralErrors } from '../schema/structural.ts'
import {
  bundleVersionAnnotation,
  channelAnnotation,
  gatewayDefinitions,
  revisionAnnotation,
  supersedes,
} from './crds.ts'
import { compareReleases } from './release.ts'

const definitions = gatewayDefinitions()

test('every kind of the experimental channel is there, with the release’s annotations', (t) => {
  const served = definitions.map(({ spec }) => `${spec.names.kind} ${spec.versions.map(({ name }) => name).join(' ')}`)
  t.deepEqual(served.toSorted(), [
    'BackendTLSPolicy v1 v1alpha3',
    'GRPCRoute v1',
    'Gateway v1 v1beta1',
    'GatewayClass v1 v1beta1',
    'HTTPRoute v1 v1beta1',
    'ListenerSet v1',
    'ReferenceGrant v1 v1beta1',
    'TCPRoute v1 v1alpha2',
    'TLSRoute v1 v1alpha2 v1alpha3',
    'UDPRoute v1 v1alpha2',
    'XBackend v1alpha1',
    'XBackendTrafficPolicy v1alpha1',
    'XMesh v1alpha1',
  ])
  for (const { metadata } of definitions) {
    t.is(metadata.annotations?.[bundleVersionAnnotation], 'v1.6.1')
    t.is(metadata.annotations?.[channelAnnotation], 'experimental')
  }
})

test('the schemas are structural and their rules may be used anywhere', (t) => {
  for (const { spec } of definitions)
    for (const { schema } of spec.versions) {
      const root = schema?.openAPIV3Schema as unknown as JsonSchema
      t.deepEqual(structuralErrors(root, ''), [])
      // Under another title, so that nobody remembers having looked at it.
      t.deepEqual(definitionRuleErrors({ ...root, title: 'another' }, ''), [])
    }
})

test('what the generator has looked at is what is here', (t) => {
  const { checked } = JSON.parse(readFileSync(new URL('gen/crds.json', import.meta.url), 'utf8'))
  const digests = definitions.flatMap(({ spec }) =>
    spec.versions.map(({ schema }) => digestOf(schema?.openAPIV3Schema as unknown as JsonSchema)),
  )
  t.deepEqual(new Set(digests), new Set(checked))
})

test('kinds and main fields have a sentence of ours', (t) => {
  const route = definitions.find(({ spec }) => spec.names.kind === 'HTTPRoute')
  const root = route?.spec.versions[0]?.schema?.openAPIV3Schema as unknown as JsonSchema
  t.regex(root.description ?? '', /^Where HTTP requests go/)
  t.regex(root.properties?.spec?.properties?.rules?.description ?? '', /most specific/)
})

test('releases are ordered by their numbers, candidates before their release', (t) => {
  t.true((compareReleases('v1.6.1', 'v1.6.0') ?? 0) > 0)
  t.true((compareReleases('v1.10.0', 'v1.9.9') ?? 0) > 0)
  t.true((compareReleases('v1.6.0-rc.2', 'v1.6.0') ?? 0) < 0)
  t.true((compareReleases('v1.6.0-rc.10', 'v1.6.0-rc.2') ?? 0) > 0)
  t.is(compareReleases('v1.6.1', 'v1.6.1'), 0)
  for (const text of ['', 'v0.0.0-dev', 'v0.0.0', 'main', 'v1.6'])
    t.is(compareReleases('v1.6.1', text), undefined, text)
})

test('ours takes the place of an older one and of no other', (t) => {
  const [ours] = definitions
  if (ours === undefined) return t.fail('there are no definitions')
  const present = (annotations: Record<string, string | undefined>): CustomResourceDefinition => {
    const all = { ...ours.metadata.annotations, ...annotations }
    const kept = Object.entries(all).filter((e): e is [string, string] => e[1] !== undefined)
    return { ...ours, metadata: { ...ours.metadata, annotations: Object.fromEntries(kept) } }
  }
  t.false(supersedes(ours, ours))
  t.true(supersedes(ours, present({ [bundleVersionAnnotation]: 'v1.5.0', [revisionAnnotation]: undefined })))
  t.true(supersedes(ours, present({ [revisionAnnotation]: 'before' })), 'an earlier edition of ours')
  t.false(supersedes(ours, present({ [revisionAnnotation]: undefined })), 'upstream’s own of the same release')
  t.false(supersedes(ours, present({ [bundleVersionAnnotation]: 'v1.7.0' })), 'a newer one')
  t.false(supersedes(ours, present({ [bundleVersionAnnotation]: 'v0.0.0-dev' })), 'a development build')
  t.false(supersedes(ours, present({ [channelAnnotation]: 'standard', [bundleVersionAnnotation]: 'v1.5.0' })))
  t.false(supersedes(ours, present({ [bundleVersionAnnotation]: undefined })), 'somebody’s own')
  return undefined
})
