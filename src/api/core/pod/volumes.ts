import type {
  DownwardAPIVolumeFile,
  KeyToPath,
  PodSpec,
  ProjectedVolumeSource,
  Volume,
  VolumeMount,
} from '../../gen/core-v1.ts'
import { dns1123Label, dns1123Subdomain } from '../../meta/names.ts'
import { tryParseQuantity } from '../../meta/quantity.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'
import { validateFieldRef, validateResourceFieldRef } from './environment.ts'

/** Volumes of a pod, and where containers mount them. */

const modeWords = 'must be a number between 0 and 0777 (octal), both inclusive'
const downwardFields = [
  'metadata.annotations',
  'metadata.labels',
  'metadata.name',
  'metadata.namespace',
  'metadata.uid',
]
const hostPathTypes = [
  '',
  'BlockDevice',
  'CharDevice',
  'Directory',
  'DirectoryOrCreate',
  'File',
  'FileOrCreate',
  'Socket',
]

/** Names of the volumes, for the mounts to refer to. */
export function validateVolumes(volumes: readonly Volume[], path: string, errors: FieldError[]): Set<string> {
  const names = new Set<string>()
  for (const [i, volume] of volumes.entries()) {
    const at = `${path}[${i}]`
    validateSource(volume, at, errors)
    if (!volume.name) errors.push(fieldError.required(`${at}.name`))
    else {
      const words = dns1123Label(volume.name)
      for (const text of words) errors.push(fieldError.invalid(`${at}.name`, volume.name, text))
      if (words.length === 0 && names.has(volume.name)) errors.push(fieldError.duplicate(`${at}.name`, volume.name))
      names.add(volume.name)
    }
  }
  return names
}

function validateSource(volume: Volume, path: string, errors: FieldError[]): void {
  let count = 0
  for (const type in volume) {
    if (type === 'name' || volume[type as keyof Volume] === undefined) continue
    count++
    if (count === 1) validateOneSource(volume, `${path}`, errors)
    else errors.push(fieldError.forbidden(`${path}.${type}`, 'may not specify more than 1 volume type'))
  }
  if (count === 0) errors.push(fieldError.required(path, 'must specify a volume type'))
}

function validateOneSource(volume: Volume, path: string, errors: FieldError[]): void {
  const { hostPath, emptyDir, secret, configMap, projected, downwardAPI, nfs, persistentVolumeClaim } = volume
  if (emptyDir?.sizeLimit !== undefined && (tryParseQuantity(emptyDir.sizeLimit)?.nano ?? -1n) < 0n) {
    errors.push(fieldError.forbidden(`${path}.emptyDir.sizeLimit`, 'SizeLimit field must be a valid resource quantity'))
  }
  if (hostPath) {
    const at = `${path}.hostPath`
    if (!hostPath.path) errors.push(fieldError.required(`${at}.path`))
    else if (goesUp(hostPath.path)) {
      errors.push(fieldError.invalid(`${at}.path`, hostPath.path, "must not contain '..'"))
    }
    if (hostPath.type !== undefined && !hostPathTypes.includes(hostPath.type)) {
      errors.push(fieldError.notSupported(`${at}.type`, hostPath.type, hostPathTypes))
    }
  }
  if (secret) {
    if (!secret.secretName) errors.push(fieldError.required(`${path}.secret.secretName`))
    validateMode(secret.defaultMode, `${path}.secret.defaultMode`, errors)
    validateItems(secret.items, `${path}.secret`, errors)
  }
  if (configMap) {
    if (!configMap.name) errors.push(fieldError.required(`${path}.configMap.name`))
    validateMode(configMap.defaultMode, `${path}.configMap.defaultMode`, errors)
    validateItems(configMap.items, `${path}.configMap`, errors)
  }
  if (downwardAPI) {
    validateMode(downwardAPI.defaultMode, `${path}.downwardAPI.defaultMode`, errors)
    for (const item of downwardAPI.items ?? []) validateDownwardFile(item, `${path}.downwardAPI`, errors)
  }
  if (projected) validateProjected(projected, `${path}.projected`, errors)
  if (persistentVolumeClaim && !persistentVolumeClaim.claimName) {
    errors.push(fieldError.required(`${path}.persistentVolumeClaim.claimName`))
  }
  if (nfs) {
    if (!nfs.server) errors.push(fieldError.required(`${path}.nfs.server`))
    if (!nfs.path) errors.push(fieldError.required(`${path}.nfs.path`))
    if (!nfs.path?.startsWith('/')) {
      errors.push(fieldError.invalid(`${path}.nfs.path`, nfs.path ?? '', 'must be an absolute path'))
    }
  }
  if (volume.csi && !volume.csi.driver) errors.push(fieldError.required(`${path}.csi.driver`))
  if (volume.ephemeral && volume.ephemeral.volumeClaimTemplate === undefined) {
    errors.push(fieldError.required(`${path}.ephemeral.volumeClaimTemplate`))
  }
}

function validateMode(mode: number | undefined, path: string, errors: FieldError[]): void {
  if (mode !== undefined && (mode < 0 || mode > 0o777)) errors.push(fieldError.invalid(path, mode, modeWords))
}

function validateItems(items: readonly KeyToPath[] | undefined, path: string, errors: FieldError[]): void {
  for (const [i, item] of (items ?? []).entries()) {
    const at = `${path}.items[${i}]`
    if (!item.key) errors.push(fieldError.required(`${at}.key`))
    validateLocalPath(item.path, `${at}.path`, errors)
    validateMode(item.mode, `${at}.mode`, errors)
  }
}

function validateDownwardFile(file: DownwardAPIVolumeFile, path: string, errors: FieldError[]): void {
  validateLocalPath(file.path, `${path}.path`, errors)
  if (file.fieldRef) {
    validateFieldRef(file.fieldRef, downwardFields, `${path}.fieldRef`, errors)
    if (file.resourceFieldRef) {
      errors.push(
        fieldError.invalid(path, 'resource', 'fieldRef and resourceFieldRef can not be specified simultaneously'),
      )
    }
  } else if (file.resourceFieldRef) {
    validateResourceFieldRef(file.resourceFieldRef, `${path}.resourceFieldRef`, true, errors)
  } else errors.push(fieldError.required(path, 'one of fieldRef and resourceFieldRef is required'))
  validateMode(file.mode, `${path}.mode`, errors)
}

function validateProjected(projected: ProjectedVolumeSource, path: string, errors: FieldError[]): void {
  validateMode(projected.defaultMode, `${path}.defaultMode`, errors)
  const paths = new Set<string>()
  const claim = (file: string | undefined, name: string): void => {
    if (!file) return
    if (paths.has(file)) errors.push(fieldError.invalid(path, name, 'conflicting duplicate paths'))
    paths.add(file)
  }
  for (const [i, source] of (projected.sources ?? []).entries()) {
    const at = `${path}.sources[${i}]`
    const { secret, configMap, downwardAPI, serviceAccountToken } = source
    const types = Object.values(source).filter((value) => value !== undefined).length
    if (types > 1) errors.push(fieldError.forbidden(at, 'may not specify more than 1 volume type per source'))
    if (secret) {
      if (!secret.name) errors.push(fieldError.required(`${at}.secret.name`))
      validateItems(secret.items, `${at}.secret`, errors)
      for (const item of secret.items ?? []) claim(item.path, secret.name ?? '')
    }
    if (configMap) {
      if (!configMap.name) errors.push(fieldError.required(`${at}.configMap.name`))
      validateItems(configMap.items, `${at}.configMap`, errors)
      for (const item of configMap.items ?? []) claim(item.path, configMap.name ?? '')
    }
    for (const item of downwardAPI?.items ?? []) {
      validateDownwardFile(item, `${at}.downwardAPI`, errors)
      claim(item.path, item.path)
    }
    if (serviceAccountToken) {
      const seconds = serviceAccountToken.expirationSeconds ?? 3600
      const field = `${at}.serviceAccountToken.expirationSeconds`
      if (seconds < 600) {
        errors.push(fieldError.invalid(field, seconds, 'may not specify a duration less than 10 minutes'))
      }
      if (seconds > 2 ** 32) {
        errors.push(fieldError.invalid(field, seconds, 'may not specify a duration larger than 2^32 seconds'))
      }
      validateLocalPath(serviceAccountToken.path, `${path}.path`, errors)
    }
  }
}

const goesUp = (path: string): boolean => path.split('/').includes('..')

/** A path inside the volume, that does not begin with the names its own bookkeeping uses. */
function validateLocalPath(value: string | undefined, path: string, errors: FieldError[]): void {
  if (!value) {
    errors.push(fieldError.required(path))
    return
  }
  validateDescending(value, path, errors)
  if (value.startsWith('..') && !value.startsWith('../')) {
    errors.push(fieldError.invalid(path, value, "must not start with '..'"))
  }
}

function validateDescending(value: string, path: string, errors: FieldError[]): void {
  if (value.startsWith('/')) errors.push(fieldError.invalid(path, value, 'must be a relative path'))
  if (goesUp(value)) errors.push(fieldError.invalid(path, value, "must not contain '..'"))
}

const propagations = ['Bidirectional', 'HostToContainer', 'None']
const recursions = ['Disabled', 'Enabled', 'IfPossible']

export function validateMounts(
  mounts: readonly VolumeMount[],
  volumes: ReadonlySet<string>,
  isPrivileged: boolean,
  path: string,
  errors: FieldError[],
): void {
  const places = new Set<string>()
  for (const [i, mount] of mounts.entries()) {
    const at = `${path}[${i}]`
    if (!mount.name) errors.push(fieldError.required(`${at}.name`))
    if (!volumes.has(mount.name)) errors.push(fieldError.notFound(`${at}.name`, mount.name))
    if (!mount.mountPath) errors.push(fieldError.required(`${at}.mountPath`))
    if (places.has(mount.mountPath)) {
      errors.push(fieldError.invalid(`${at}.mountPath`, mount.mountPath, 'must be unique'))
    }
    places.add(mount.mountPath)
    if (mount.subPath) validateDescending(mount.subPath, `${path}.subPath`, errors)
    if (mount.subPathExpr) {
      if (mount.subPath) {
        errors.push(
          fieldError.invalid(`${at}.subPathExpr`, mount.subPathExpr, 'subPathExpr and subPath are mutually exclusive'),
        )
      }
      validateDescending(mount.subPathExpr, `${path}.subPathExpr`, errors)
    }
    if (mount.recursiveReadOnly !== undefined && !recursions.includes(mount.recursiveReadOnly)) {
      errors.push(fieldError.notSupported(`${path}.recursiveReadOnly`, mount.recursiveReadOnly, recursions))
    }
    const propagation = mount.mountPropagation
    if (propagation === undefined) continue
    if (!propagations.includes(propagation)) {
      errors.push(fieldError.notSupported(`${path}.mountPropagation`, propagation, propagations))
    } else if (propagation === 'Bidirectional' && !isPrivileged) {
      errors.push(
        fieldError.forbidden(
          `${path}.mountPropagation`,
          'Bidirectional mount propagation is available only to privileged containers',
        ),
      )
    }
  }
}

/** Names of secrets to pull images with. */
export function validatePullSecrets(spec: PodSpec, path: string, errors: FieldError[]): void {
  for (const [i, { name = '' }] of (spec.imagePullSecrets ?? []).entries()) {
    // A list entry without a name is taken and never used, as upstream has it.
    if (name !== '') {
      for (const words of dns1123Subdomain(name)) {
        errors.push(fieldError.invalid(`${path}.imagePullSecrets[${i}].name`, name, words))
      }
    }
  }
}
