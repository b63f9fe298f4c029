/** The object of the load, as the stored figures were made with it: about 300 bytes of data. */
export const nameOf = (i: number): string => `load-${String(i).padStart(6, '0')}`

export const bodyOf = (name: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, labels: { app: 'load', tier: name } },
    data: { a: '0123456789abcdef'.repeat(4), b: '0123456789abcdef'.repeat(2), c: 'x' },
  })
