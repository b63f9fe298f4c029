/** On a deleted object whose dependents are let go before it goes (propagationPolicy Orphan). */
export const orphanFinalizer = 'orphan'

/** On a deleted object that waits for its dependents to go first (propagationPolicy Foreground). */
export const foregroundFinalizer = 'foregroundDeletion'

/** In `spec.finalizers` of a namespace: it has content, or nobody has looked yet. */
export const contentFinalizer = 'kubernetes'
