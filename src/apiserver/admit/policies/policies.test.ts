import test from 'ava'
import { validatingAdmissionPolicy } from '#api/admissionregistration/validating-admission-policy.ts'
import { validatingAdmissionPolicyBinding } from '#api/admissionregistration/validating-admission-policy-binding.ts'
import type {
  ValidatingAdmissionPolicyBindingSpec as BindingSpec,
  NamedRuleWithOperations,
  ValidatingAdmissionPolicySpec as PolicySpec,
} from '#api/gen/admissionregistration-v1.ts'
import * as resources from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { StatusError } from '#api/meta/status.ts'
import { FakeRegistry } from '../../fake-registry.ts'
import type { AdmissionRequest, Attributes, Decision } from '../../step.ts'
import { connectOptions } from '../../stream/connect-options.ts'
import { admissionPolicies } from './policies.ts'

const meta = (name: string, more: object = {}) => ({
  name,
  uid: `uid-${name}`,
  resourceVersion: '1',
  creationTimestamp: '2026-01-01T00:00:00Z',
  ...more,
})
const configMaps: NamedRuleWithOperations = {
  apiGroups: [''],
  apiVersions: ['v1'],
  operations: ['CREATE', 'UPDATE'],
  resources: ['configmaps'],
}

function policyOf(spec: PolicySpec, name = 'p') {
  const policy = {
    apiVersion: 'admissionregistration.k8s.io/v1' as const,
    kind: 'ValidatingAdmissionPolicy' as const,
    metadata: meta(name),
    spec: { matchConstraints: { resourceRules: [structuredClone(configMaps)] }, ...spec },
    status: {},
  }
  validatingAdmissionPolicy.defaults(policy)
  return policy
}
function bindingOf(spec: BindingSpec, name = 'b') {
  const binding = {
    apiVersion: 'admissionregistration.k8s.io/v1' as const,
    kind: 'ValidatingAdmissionPolicyBinding' as const,
    metadata: meta(name),
    spec: { policyName: 'p', validationActions: ['Deny' as const], ...spec },
  }
  validatingAdmissionPolicyBinding.defaults(binding)
  return binding
}
const configMap = (data: Record<string, string>, more: object = {}): KubeObject =>
  ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: meta('c', { namespace: 'default', ...more }), data }) as KubeObject

interface Asked {
  readonly resource?: Resource
  readonly operation?: AdmissionRequest['operation']
  readonly old?: KubeObject
  readonly namespace?: string
  readonly subresource?: string
  readonly version?: string
}

/** The words of the refusal, or `admitted`, then the warnings. */
function verdict(registry: FakeRegistry, object: KubeObject | undefined, asked: Asked = {}): string[] {
  const { resource = resources.configMaps, operation = 'CREATE', old, subresource = '' } = asked
  const { group, resource: plural, namespaced } = resource
  const warnings: string[] = []
  const step = admissionPolicies(
    registry,
    ({ user, verb, resource: about }: Attributes): Decision => ({
      allowed: user.name === 'root' || (verb === 'get' && about === 'pods'),
      reason: '',
    }),
  )
  try {
    step.validate?.({
      attributes: {
        user: { name: 'ann', groups: ['g'] },
        verb: operation.toLowerCase(),
        group,
        version: asked.version ?? resource.version,
        resource: plural,
        subresource,
        namespace: asked.namespace ?? (namespaced ? 'default' : ''),
        name: object?.metadata.name ?? old?.metadata.name ?? '',
        path: undefined,
      },
      operation,
      object,
      old,
      dryRun: false,
      warn: (text) => warnings.push(text),
    })
    return ['admitted', ...warnings]
  } catch (error) {
    if (error instanceof StatusError) return [`${error.code} ${error.reason} ${error.message}`, ...warnings]
    throw error
  }
}

function setUp(policy: PolicySpec, binding: BindingSpec = {}): FakeRegistry {
  const registry = new FakeRegistry()
    .put(resources.namespaces, {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: meta('default', { labels: { env: 'prod' } }),
      spec: {},
      status: { phase: 'Active' },
    })
    .put(resources.validatingAdmissionPolicies, policyOf(policy))
    .put(resources.validatingAdmissionPolicyBindings, bindingOf(binding))
  registry.known.push(resources.configMaps, resources.namespaces, resources.pods)
  return registry
}

const denied = (message: string): string =>
  `422 Invalid configmaps "c" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ${message}`

test('a request that breaks a bound policy is denied with its message', (t) => {
  const registry = setUp({ validations: [{ expression: "object.data.a == 'x'", message: 'a must be x' }] })
  t.deepEqual(verdict(registry, configMap({ a: 'x' })), ['admitted'])
  t.deepEqual(verdict(registry, configMap({ a: 'y' })), [denied('a must be x')])
})

test('without a message the expression is shown; a messageExpression makes one', (t) => {
  t.deepEqual(verdict(setUp({ validations: [{ expression: 'has(object.data.b)' }] }), configMap({})), [
    denied('failed expression: has(object.data.b)'),
  ])
  const said = { expression: "object.data.a == 'x'", message: 'm', messageExpression: "'a is ' + object.data.a" }
  t.deepEqual(verdict(setUp({ validations: [said] }), configMap({ a: 'y' })), [denied('a is y')])
  const silent = { ...said, messageExpression: "object.data.nope + ''" }
  t.deepEqual(verdict(setUp({ validations: [silent] }), configMap({ a: 'y' })), [denied('m')])
})

test('a reason sets the code', (t) => {
  const registry = setUp({ validations: [{ expression: 'false', reason: 'Forbidden', message: 'm' }] })
  t.regex(verdict(registry, configMap({}))[0] ?? '', /^403 Forbidden /)
})

test('a policy that nobody has bound, or that another change has taken away, denies nothing', async (t) => {
  const registry = setUp({ validations: [{ expression: 'false', message: 'no' }] }, { policyName: 'other' })
  t.deepEqual(verdict(registry, configMap({})), ['admitted'])
  registry.put(resources.validatingAdmissionPolicyBindings, bindingOf({}))
  t.deepEqual(verdict(registry, configMap({})), [denied('no')])
  await registry.delete(resources.validatingAdmissionPolicies, '', 'p')
  t.deepEqual(verdict(registry, configMap({})), ['admitted'])
})

test('an expression that fails denies, unless the policy says Ignore', (t) => {
  const validations = [{ expression: "object.data.nope == 'x'", message: 'm' }]
  const words = "expression 'object.data.nope == 'x'' resulted in error: no such key: nope"
  t.deepEqual(verdict(setUp({ validations }), configMap({})), [denied(words)])
  t.deepEqual(verdict(setUp({ validations, failurePolicy: 'Ignore' }), configMap({})), ['admitted'])
})

test('Warn says it and lets it pass; Audit alone says nothing', (t) => {
  const validations = [{ expression: 'false', message: 'no' }]
  t.deepEqual(verdict(setUp({ validations }, { validationActions: ['Warn', 'Audit'] }), configMap({})), [
    'admitted',
    "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no",
  ])
  t.deepEqual(verdict(setUp({ validations }, { validationActions: ['Audit'] }), configMap({})), ['admitted'])
})

test('matchConditions leave requests out; one that says no settles it', (t) => {
  const validations = [{ expression: 'false', message: 'no' }]
  const out = (...expressions: string[]): string[] =>
    verdict(
      setUp({ validations, matchConditions: expressions.map((expression, i) => ({ name: `c${i}`, expression })) }),
      configMap({}),
    )
  t.deepEqual(out("request.userInfo.username == 'ann'"), [denied('no')])
  t.deepEqual(out("request.userInfo.username == 'bob'"), ['admitted'])
  t.deepEqual(out('object.data.nope == 1', 'false'), ['admitted'])
  t.deepEqual(out('object.data.nope == 1', 'true'), [
    denied("expression 'object.data.nope == 1' resulted in error: no such key: nope"),
  ])
})

test('variables are evaluated when they are read, and may build on those before', (t) => {
  const registry = setUp({
    variables: [
      { name: 'bad', expression: 'object.data.nope' },
      { name: 'n', expression: 'int(object.data.n)' },
      { name: 'twice', expression: 'variables.n * 2' },
    ],
    validations: [{ expression: 'variables.twice < 10', messageExpression: "'twice is ' + string(variables.twice)" }],
  })
  t.deepEqual(verdict(registry, configMap({ n: '4' })), ['admitted'])
  t.deepEqual(verdict(registry, configMap({ n: '5' })), [denied('twice is 10')])
})

test('the old object, the request, the namespace and the authorizer can be spoken of', (t) => {
  const holds = (expression: string, asked: Asked = {}): void => {
    const registry = setUp({
      validations: [{ expression }],
      matchConstraints: { resourceRules: [{ ...configMaps, operations: ['*'] }] },
    })
    t.deepEqual(verdict(registry, configMap({ a: '1' }), asked), ['admitted'], expression)
  }
  holds('oldObject == null')
  holds("oldObject.data.a == '0' && object.data.a == '1'", { operation: 'UPDATE', old: configMap({ a: '0' }) })
  holds(
    "request.operation == 'CREATE' && request.resource.resource == 'configmaps' && request.kind.kind == 'ConfigMap' && request.namespace == 'default' && request.name == 'c' && !request.dryRun",
  )
  holds("request.userInfo.groups.exists(g, g == 'g')")
  holds("namespaceObject.metadata.labels['env'] == 'prod' && namespaceObject.status.phase == 'Active'")
  holds("authorizer.group('').resource('pods').namespace('default').check('get').allowed()")
  holds("!authorizer.group('').resource('secrets').check('get').allowed()")
  holds("!authorizer.requestResource.check('delete').allowed()")
  holds("!authorizer.serviceAccount('default', 'sa').path('/x').check('post').allowed()")
})

test('parameters are found by name or label; what happens without them is the binding’s to say', (t) => {
  const policy: PolicySpec = {
    paramKind: { apiVersion: 'v1', kind: 'ConfigMap' },
    validations: [{ expression: 'object.data.n == params.data.n', message: 'differs' }],
  }
  const param = (name: string, n: string, labels: object = {}): KubeObject => configMap({ n }, { name, labels })
  const named = setUp(policy, { paramRef: { name: 'limit', parameterNotFoundAction: 'Deny' } })
  t.deepEqual(verdict(named, configMap({ n: '1' })), [
    denied('failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction'),
  ])
  named.put(resources.configMaps, param('limit', '1') as never)
  t.deepEqual(verdict(named, configMap({ n: '1' })), ['admitted'])
  t.deepEqual(verdict(named, configMap({ n: '2' })), [denied('differs')])
  const selected = setUp(policy, {
    paramRef: { selector: { matchLabels: { l: 'x' } }, parameterNotFoundAction: 'Allow' },
  })
  t.deepEqual(verdict(selected, configMap({ n: '2' })), ['admitted'])
  selected.put(resources.configMaps, param('a', '2', { l: 'x' }) as never, param('b', '3', { l: 'x' }) as never)
  t.deepEqual(verdict(selected, configMap({ n: '2' })), [denied('differs')])
  const unknown = setUp(
    { ...policy, paramKind: { apiVersion: 'a.b/v1', kind: 'C' } },
    { paramRef: { name: 'x', parameterNotFoundAction: 'Allow' } },
  )
  t.deepEqual(verdict(unknown, configMap({ n: '2' })), [
    denied('failed to configure binding: paramKind kind `a.b/v1, Kind=C` not known'),
  ])
})

test('a policy is about the resources, operations, names and labels that it names', (t) => {
  const isAbout = (
    rule: Partial<NamedRuleWithOperations>,
    more: object = {},
    asked: Asked = {},
    labels = {},
  ): boolean => {
    const registry = setUp({
      validations: [{ expression: 'false' }],
      matchConstraints: { resourceRules: [{ ...configMaps, ...rule }], ...more },
    })
    return verdict(registry, configMap({}, { labels }), asked)[0] !== 'admitted'
  }
  t.true(isAbout({}))
  t.true(isAbout({ apiGroups: ['*'], apiVersions: ['*'], operations: ['*'], resources: ['*'] }))
  t.false(isAbout({ apiGroups: ['apps'] }))
  t.false(isAbout({ operations: ['DELETE'] }))
  t.false(isAbout({ resources: ['secrets'] }))
  t.false(isAbout({ resources: ['configmaps/status'] }))
  t.true(isAbout({ resources: ['*/*'] }, {}, { subresource: 'status' }))
  t.false(isAbout({ resources: ['*'] }, {}, { subresource: 'status' }))
  t.true(isAbout({ resourceNames: ['c'] }))
  t.false(isAbout({ resourceNames: ['d'] }))
  t.true(isAbout({ scope: 'Namespaced' }))
  t.false(isAbout({ scope: 'Cluster' }))
  t.false(isAbout({}, { excludeResourceRules: [{ ...configMaps, resourceNames: ['c'] }] }))
  t.true(isAbout({}, { namespaceSelector: { matchLabels: { env: 'prod' } } }))
  t.false(isAbout({}, { namespaceSelector: { matchLabels: { env: 'test' } } }))
  t.true(isAbout({}, { objectSelector: { matchLabels: { a: 'b' } } }, {}, { a: 'b' }))
  t.false(isAbout({}, { objectSelector: { matchLabels: { a: 'b' } } }, {}, { a: 'c' }))
  t.true(
    isAbout(
      {},
      { objectSelector: { matchLabels: { a: 'b' } } },
      { operation: 'UPDATE', old: configMap({}, { labels: { a: 'b' } }) },
    ),
  )
})

test('a binding narrows what its policy is about', (t) => {
  const policy: PolicySpec = { validations: [{ expression: 'false', message: 'no' }] }
  const only = (name: string): BindingSpec => ({
    matchResources: { resourceRules: [{ ...configMaps, resourceNames: [name] }] },
  })
  t.deepEqual(verdict(setUp(policy, only('c')), configMap({})), [denied('no')])
  t.deepEqual(verdict(setUp(policy, only('d')), configMap({})), ['admitted'])
})

test('with Equivalent another version of the same resource counts, and is shown as the one asked for', (t) => {
  const v2 = { ...resources.configMaps, version: 'v2' } as unknown as Resource
  const ask = (matchPolicy: 'Equivalent' | 'Exact'): string[] => {
    const registry = setUp({
      validations: [
        {
          expression:
            "object.apiVersion == 'v1' && request.resource.version == 'v1' && request.requestResource.version == 'v2' && false",
          message: 'seen',
        },
      ],
      matchConstraints: { matchPolicy, resourceRules: [configMaps] },
    })
    registry.known.push(v2)
    return verdict(registry, { ...configMap({}), apiVersion: 'v2' }, { version: 'v2' })
  }
  t.deepEqual(ask('Exact'), ['admitted'])
  t.deepEqual(ask('Equivalent'), [denied('seen')])
})

test('opening a stream into a pod is a request like others', (t) => {
  const rule: NamedRuleWithOperations = {
    apiGroups: [''],
    apiVersions: ['v1'],
    operations: ['CONNECT'],
    resources: ['pods/exec', 'pods/portforward'],
  }
  const registry = setUp({
    validations: [{ expression: "!('sh' in object.command) && !object.tty", message: 'no shells' }],
    matchConstraints: { resourceRules: [rule] },
  })
  const open = (query: string): string[] =>
    verdict(registry, connectOptions('exec', new URLSearchParams(query)), {
      resource: resources.pods as unknown as Resource,
      operation: 'CONNECT',
      subresource: 'exec',
    })
  t.deepEqual(open('command=ls&command=-l&stdout=true'), ['admitted'])
  t.regex(open('command=sh&stdin=1&tty=1')[0] ?? '', /no shells$/)
  const { ports } = connectOptions('portforward', new URLSearchParams('ports=80&ports=81')) as unknown as {
    ports: number[]
  }
  t.deepEqual(ports, [80, 81])
})

test('no policy can keep policies from being mended', (t) => {
  const registry = setUp({
    validations: [{ expression: 'false' }],
    matchConstraints: {
      resourceRules: [{ apiGroups: ['*'], apiVersions: ['*'], operations: ['*'], resources: ['*'] }],
    },
  })
  const asked = { resource: resources.validatingAdmissionPolicies as unknown as Resource }
  t.deepEqual(verdict(registry, policyOf({}) as unknown as KubeObject, asked), ['admitted'])
})

test('an expression without end is stopped, and denies', (t) => {
  const list = `[${Array.from({ length: 120 }, (_, i) => i).join(', ')}]`
  const expression = `${list}.all(a, ${list}.all(b, ${list}.all(c, a + b + c >= 0)))`
  const [words = ''] = verdict(setUp({ validations: [{ expression }] }), configMap({}))
  t.regex(words, /resulted in error: operation cancelled: actual cost limit exceeded$/)
})

const complaints = (spec: PolicySpec): string[] =>
  validatingAdmissionPolicy.validate(policyOf(spec)).map(({ path, message }) => `${path}: ${message}`)

test('a policy is refused where an expression does not compile', (t) => {
  t.regex(
    complaints({ validations: [{ expression: 'object.' }] }).join(),
    /^spec\.validations\[0\]\.expression: .*compilation failed: ERROR: <input>:1:8: Syntax error/,
  )
  t.regex(complaints({ validations: [{ expression: '1' }] }).join(), /must evaluate to bool/)
  t.regex(complaints({ validations: [{ expression: 'params.x == 1' }] }).join(), /undeclared reference to 'params'/)
  t.regex(complaints({ validations: [{ expression: 'request.nope' }] }).join(), /undefined field 'nope'/)
  t.regex(
    complaints({ validations: [{ expression: 'variables.nope' }] }).join(),
    /undefined field 'nope'|undeclared reference/,
  )
  t.regex(
    complaints({
      validations: [{ expression: 'true', messageExpression: "authorizer.path('/').check('get').reason()" }],
    }).join(),
    /undeclared reference to 'authorizer'/,
  )
  t.regex(
    complaints({
      variables: [
        { name: 'a', expression: 'variables.b' },
        { name: 'b', expression: '1' },
      ],
      validations: [{ expression: 'true' }],
    }).join(),
    /spec\.variables\[0\]\.expression: .*undefined field 'b'/,
  )
  t.deepEqual(
    complaints({ paramKind: { apiVersion: 'v1', kind: 'ConfigMap' }, validations: [{ expression: 'params.x == 1' }] }),
    [],
  )
})

test('the form of a policy is checked as upstream does', (t) => {
  t.deepEqual(complaints({ validations: [] }), [
    'spec.validations: Required value: validations or auditAnnotations must contain at least one item',
    'spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item',
  ])
  t.deepEqual(complaints({ validations: [{ expression: 'true', message: 'a\nb' }] }), [
    'spec.validations[0].message: Invalid value: "a\\nb": must not contain line breaks',
  ])
  t.deepEqual(
    complaints({
      auditAnnotations: [
        { key: 'k', valueExpression: "'v'" },
        { key: 'k', valueExpression: '1' },
      ],
    }),
    [
      'spec.auditAnnotations[1].key: Duplicate value: "k"',
      'spec.auditAnnotations[1].valueExpression: Invalid value: "1": must evaluate to one of [string null_type]',
    ],
  )
  const matchConstraints = {
    resourceRules: [{ ...configMaps, operations: ['NOPE' as 'CREATE'], resources: ['a/*', 'a/b'] }],
  }
  t.deepEqual(complaints({ matchConstraints, validations: [{ expression: 'true' }] }), [
    'spec.matchConstraints.resourceRules[0].operations[0]: Unsupported value: "NOPE": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"',
    `spec.matchConstraints.resourceRules[0].resources[1]: Invalid value: "a/b": if 'a/*' is present, must not specify a/b`,
  ])
  const binding = validatingAdmissionPolicyBinding.validate(
    bindingOf({ validationActions: ['Deny', 'Warn'], paramRef: {} }) as never,
  )
  t.deepEqual(
    binding.map(({ path, message }) => `${path}: ${message}`),
    [
      'spec.paramRef: Required value: one of name or selector must be specified',
      'spec.paramRef.parameterNotFoundAction: Required value',
      'spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)',
    ],
  )
})
