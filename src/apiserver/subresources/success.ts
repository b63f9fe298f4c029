/** What is answered where there is no object to show. */
export const success = { apiVersion: 'v1', kind: 'Status', metadata: {}, status: 'Success', code: 201 } as const
