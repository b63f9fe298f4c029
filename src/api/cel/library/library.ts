import { type FunctionTable, type Overload, tableOf } from '../functions.ts'
import { operators } from '../operators.ts'
import { addresses } from './addresses.ts'
import { formatLibrary } from './formats.ts'
import { lists, sets } from './lists.ts'
import { optionals } from './optionals.ts'
import { quantities } from './quantities.ts'
import { semvers } from './semvers.ts'
import { standard } from './standard.ts'
import { strings } from './strings.ts'
import { urls } from './urls.ts'

const all: readonly (readonly Overload[])[] = [
  operators,
  standard,
  strings,
  lists,
  sets,
  optionals,
  urls,
  quantities,
  addresses,
  formatLibrary,
  semvers,
]

/** What every expression of Kubernetes v1.36 can call (apiserver pkg/cel/environment/base.go), without the authorizer. */
export const kubernetesFunctions: FunctionTable = tableOf(...all)

/** The same with more. */
export const functionsWith = (...more: readonly (readonly Overload[])[]): FunctionTable => tableOf(...all, ...more)
