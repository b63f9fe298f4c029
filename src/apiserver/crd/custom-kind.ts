import type { CustomResourceDefinition, CustomResourceDefinitionVersion } from '#api/gen/apiextensions-v1.ts'
import type { ScalePaths, Subresource } from '#api/kind.ts'
import { allVerbs, scaleSubresource, statusSubresource } from '#api/meta/define.ts'
import { nameIsDnsSubdomain } from '#api/meta/names.ts'
import { validateObjectMeta, validateObjectMetaUpdate } from '#api/meta/object-meta.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { findAll, parsePath } from '#api/schema/custom/jsonpath.ts'
import { prune } from '#api/schema/custom/prune.ts'
import { isObject, type Json, type JsonSchema } from '#api/schema/json-schema.ts'
import { SchemaCheck } from './check.ts'
import { columnsOf } from './columns.ts'
import { applyDefaults } from './defaults.ts'
import type { CustomKind } from './kind.ts'

/**
 * What a CustomResourceDefinition makes us serve: one kind per served version. Pure; whether it may be served at all
 * (names, structure) is decided elsewhere. While the definition is being deleted, nothing new can be created.
 */
export function fromCustomResourceDefinition(definition: CustomResourceDefinition): CustomKind[] {
  return definition.spec.versions.filter((v) => v.served).map((version) => kindOf(definition, version))
}

/** A schema that says nothing keeps everything. */
const open: JsonSchema = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }

function kindOf(definition: CustomResourceDefinition, version: CustomResourceDefinitionVersion): CustomKind {
  const { group, names, scope } = definition.spec
  const namespaced = scope !== 'Cluster'
  const schema = (version.schema?.openAPIV3Schema ?? open) as JsonSchema & Json
  const apiVersion = `${group}/${version.name}`
  const hasStatus = version.subresources?.status !== undefined
  const scale = scaleOf(version)
  const subresources: Subresource[] = []
  if (hasStatus) subresources.push(statusSubresource)
  if (scale !== undefined) subresources.push(scaleSubresource)
  const isGoing = definition.metadata.deletionTimestamp !== undefined
  const stored = storedForm(definition, version.name, apiVersion, schema)
  const check = new SchemaCheck(schema)
  return {
    definition: definition.metadata.name,
    schema,
    listKind: names.listKind || `${names.kind}List`,
    resource: { group, version: version.name, resource: names.plural, kind: names.kind, namespaced },
    message: undefined,
    singular: names.singular || names.kind.toLowerCase(),
    shortNames: names.shortNames ?? [],
    categories: names.categories ?? [],
    verbs: isGoing ? allVerbs.filter((verb) => verb !== 'create') : allVerbs,
    subresources,
    description: schema.description ?? `${names.kind} of ${group}.`,
    hasGeneration: true,
    unconditionalUpdate: false,
    createOnUpdate: false,
    conform: (value) => (isObject(value) ? prune(value, schema) : []),
    defaults: (object) => applyDefaults(object, schema),
    prepareCreate(object) {
      if (hasStatus) delete (object as KubeObject & Json).status
    },
    prepareUpdate(next, old) {
      if (hasStatus) keepStatus(next as KubeObject & Json, old as KubeObject & Json)
    },
    validate: (object) => [...validateObjectMeta(object, namespaced, nameIsDnsSubdomain), ...check.created(object)],
    validateUpdate: (next, old) => [...validateObjectMetaUpdate(next, old), ...check.updated(next, old)],
    validateStatusUpdate: (next, old) => [...validateObjectMetaUpdate(next, old), ...check.statusUpdated(next, old)],
    columns: columnsOf(version.additionalPrinterColumns ?? []),
    selectableFields: selectableFieldsOf(version),
    warnings: (object) => [
      ...(version.deprecated === true
        ? [version.deprecationWarning || `${apiVersion} ${names.kind} is deprecated`]
        : []),
      ...check.warnings(object),
    ],
    ...(scale === undefined ? {} : { scale }),
    ...(stored === undefined ? {} : { stored }),
  }
}

function keepStatus(next: KubeObject & Json, old: KubeObject & Json): void {
  if (old.status === undefined) delete next.status
  else next.status = old.status
}

function scaleOf({ subresources }: CustomResourceDefinitionVersion): ScalePaths | undefined {
  const scale = subresources?.scale
  if (scale === undefined) return undefined
  return {
    specReplicas: scale.specReplicasPath,
    statusReplicas: scale.statusReplicasPath,
    ...(scale.labelSelectorPath ? { labelSelector: scale.labelSelectorPath } : {}),
  }
}

function selectableFieldsOf({
  selectableFields = [],
}: CustomResourceDefinitionVersion): CustomKind['selectableFields'] {
  return Object.fromEntries(
    selectableFields.flatMap(({ jsonPath }) => {
      const path = parsePath(jsonPath)
      if (path === undefined) return []
      const read = (object: KubeObject): string => {
        const value = findAll(object, path)[0]
        return value === undefined || value === null ? '' : String(value)
      }
      return [[jsonPath.replace(/^\./, ''), read]]
    }),
  )
}

/**
 * All versions are stored in one form. An object that was written under another version or an earlier schema is brought
 * into this one's when it is read; while there was only ever one, nothing needs to be done.
 */
function storedForm(
  { spec, status, metadata }: CustomResourceDefinition,
  version: string,
  apiVersion: string,
  schema: JsonSchema,
): CustomKind['stored'] {
  const storage = spec.versions.find((v) => v.storage)?.name ?? version
  const isOnly = spec.versions.length === 1 && (status.storedVersions ?? []).every((v) => v === version)
  if (isOnly && (metadata.generation ?? 1) <= 1) return undefined
  return {
    apiVersion: `${spec.group}/${storage}`,
    to(object) {
      object.apiVersion = `${spec.group}/${storage}`
      return object
    },
    from(object) {
      object.apiVersion = apiVersion
      prune(object as KubeObject & Json, schema)
      applyDefaults(object, schema)
      return object
    },
  }
}
