import type { PolicyRule } from '#api/gen/rbac-v1.ts'

export const read = ['get', 'list', 'watch'] as const
export const write = ['create', 'delete', 'deletecollection', 'patch', 'update'] as const

export const rule = (
  verbs: readonly string[],
  apiGroups: readonly string[],
  resources: readonly string[],
): PolicyRule => ({ verbs: [...verbs], apiGroups: [...apiGroups], resources: [...resources] })

export const urls = (verbs: readonly string[], nonResourceURLs: readonly string[]): PolicyRule => ({
  verbs: [...verbs],
  nonResourceURLs: [...nonResourceURLs],
})
