import type { Plugin } from '../plugin.ts'

/**
 * What this scheduler cannot take into account yet keeps the pod waiting, with the reason: placing it as if it had not
 * asked would be worse. Claims for volumes are not served, so every one of them is missing.
 */
export const volumeBinding: Plugin = {
  name: 'VolumeBinding',
  weight: 0,
  judge({ pod }) {
    for (const { name, persistentVolumeClaim, ephemeral } of pod.spec.volumes ?? []) {
      if (persistentVolumeClaim !== undefined)
        return { refuses: `persistentvolumeclaim "${persistentVolumeClaim.claimName}" not found` }
      if (ephemeral !== undefined) return { refuses: `persistentvolumeclaim "${pod.metadata.name}-${name}" not found` }
    }
    return undefined
  },
}

export const dynamicResources: Plugin = {
  name: 'DynamicResources',
  weight: 0,
  judge({ pod }) {
    const [claim] = pod.spec.resourceClaims ?? []
    return claim === undefined
      ? undefined
      : { refuses: `resource claim "${claim.name}" cannot be allocated: not supported` }
  },
}
