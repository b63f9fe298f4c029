/** Writes src/apiserver/openapi/gen/numbers.json: the field numbers of OpenAPI v2's protobuf form. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fetchModules } from './modules.ts'
import { parseProtoMessages } from './proto.ts'

const module = 'github.com/google/gnostic-models'
const release = 'v0.7.0'
const source = join(fetchModules([`${module}@${release}`]).get(module) ?? '', 'openapiv2/OpenAPIv2.proto')
const text = readFileSync(source, 'utf8').replace(/oneof oneof \{([^}]*)\}/g, '$1')
const used =
  'AdditionalPropertiesItem Any BodyParameter Definitions Document Info ItemsItem NamedAny NamedPathItem NamedResponseValue NamedSchema NonBodyParameter Operation Parameter ParametersItem PathItem PathParameterSubSchema Paths Properties QueryParameterSubSchema Response ResponseValue Responses Schema SchemaItem TypeItem'.split(
    ' ',
  )
const messages = parseProtoMessages(text)
const numbers = Object.fromEntries(
  used.map((name) => [name, Object.fromEntries((messages.get(name) ?? []).map((f) => [f.name, f.number]))]),
)
const folder = new URL('../../src/apiserver/openapi/gen/', import.meta.url)
mkdirSync(folder, { recursive: true })
writeFileSync(new URL('numbers.json', folder), `${JSON.stringify(numbers, null, 2)}\n`)
