// Order matters: the package looks for these functions while it loads.
import './reflect.ts'

/** The one door to `@peculiar/x509`: importing the package itself fails for want of what reflect.ts brings. */
export * from '@peculiar/x509'
