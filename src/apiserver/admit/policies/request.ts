import { Authorizer, requestResource } from '#api/cel/library/authorizer.ts'
import { toDynamic } from '#api/cel/schema/convert.ts'
import type { Namespace } from '#api/gen/core-v1.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import type { AdmissionRequest, Authorize, User } from '../../step.ts'
import type { PolicyValues } from './evaluate.ts'

/** What expressions see of a request, with the object in the version that the policy asked for. */
export function valuesOf(
  admission: AdmissionRequest,
  matched: Resource,
  namespace: Namespace | undefined,
  params: KubeObject | undefined,
  authorize: Authorize,
): PolicyValues {
  const { attributes } = admission
  const { user } = attributes
  const authorizer = new Authorizer((question) => {
    const { user: other, path, verb, ...rest } = question
    return authorize({
      user: other === undefined ? user : serviceAccount(other),
      verb,
      group: rest.group ?? '',
      version: '*',
      resource: rest.resource ?? '',
      subresource: rest.subresource ?? '',
      namespace: rest.namespace ?? '',
      name: rest.name ?? '',
      path,
      ...(rest.fieldSelector === undefined ? {} : { fieldSelector: rest.fieldSelector }),
      ...(rest.labelSelector === undefined ? {} : { labelSelector: rest.labelSelector }),
    })
  })
  const { group, resource, subresource, name } = attributes
  return {
    object: viewOf(admission.object, matched, subresource),
    oldObject: viewOf(admission.old, matched, subresource),
    request: requestOf(admission, matched),
    namespaceObject: namespace === undefined ? null : namespaceOf(namespace),
    params: params === undefined ? null : toDynamic(params),
    authorizer,
    requestResource: requestResource(authorizer, {
      group,
      resource,
      subresource,
      namespace: attributes.namespace,
      name,
    }),
  }
}

function viewOf(object: KubeObject | undefined, matched: Resource, subresource: string): unknown {
  if (object === undefined) return null
  const apiVersion = formatApiVersion(matched)
  const isOther = subresource === '' && object.apiVersion !== apiVersion
  return toDynamic(isOther ? { ...object, apiVersion } : object)
}

const serviceAccount = ({ namespace, serviceAccount: name }: { namespace: string; serviceAccount: string }): User => ({
  name: `system:serviceaccount:${namespace}:${name}`,
  groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
})

function requestOf({ attributes, operation, object, old, dryRun }: AdmissionRequest, matched: Resource): object {
  const { group, version, resource, subresource, namespace, name, user } = attributes
  const kind = (object ?? old)?.kind ?? matched.kind
  const shown = object?.metadata?.name || name
  return {
    kind: { group: matched.group, version: matched.version, kind: subresource === '' ? matched.kind : kind },
    resource: { group: matched.group, version: matched.version, resource: matched.resource },
    subResource: subresource,
    requestKind: { group, version, kind },
    requestResource: { group, version, resource },
    requestSubResource: subresource,
    name: shown,
    namespace,
    operation,
    userInfo: { username: user.name, uid: user.uid ?? '', groups: user.groups, extra: user.extra ?? {} },
    dryRun,
    options: {},
  }
}

function namespaceOf({ metadata, spec, status }: Namespace): object {
  const { uid, ...rest } = metadata
  return toDynamic({ metadata: { ...rest, UID: uid }, spec: spec ?? {}, status: status ?? {} }) as object
}
