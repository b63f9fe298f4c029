import type { KindDefinition } from '#api/kind.ts'

/** Where a message of the table lives in upstream's documents; everything else is below `io.k8s.api`. */
const packages: Readonly<Record<string, string>> = {
  meta: 'io.k8s.apimachinery.pkg.apis.meta',
  apiextensions: 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions',
  apiregistration: 'io.k8s.kube-aggregator.pkg.apis.apiregistration',
}

/** `apps/v1.Deployment` -> `io.k8s.api.apps.v1.Deployment`. */
export function definitionOfMessage(message: string): string {
  const [group = '', rest = ''] = message.split('/')
  return `${packages[group] ?? `io.k8s.api.${group}`}.${rest}`
}

/** The definition of a kind: from the table, or for a custom one its group reversed: `com.example.v1.Widget`. */
export function definitionOfKind({ message, resource }: KindDefinition): string {
  if (message !== undefined) return definitionOfMessage(message)
  return `${resource.group.split('.').toReversed().join('.')}.${resource.version}.${resource.kind}`
}

/** Definitions of the JSON forms that are no messages. */
export const scalarDefinitions = {
  quantity: 'io.k8s.apimachinery.pkg.api.resource.Quantity',
  intorstring: 'io.k8s.apimachinery.pkg.util.intstr.IntOrString',
  rawextension: 'io.k8s.apimachinery.pkg.runtime.RawExtension',
  time: 'io.k8s.apimachinery.pkg.apis.meta.v1.Time',
  microtime: 'io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime',
  duration: 'io.k8s.apimachinery.pkg.apis.meta.v1.Duration',
  fieldsv1: 'io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1',
  json: 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON',
  schemaorarray: 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray',
  schemaorbool: 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool',
  schemaorstrings: 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray',
} as const
