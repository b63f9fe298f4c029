import { version as nodeVersion, platform } from 'node:process'

/** The level of the API that is served. kubectl compares minors, so they are those of upstream. */
export const gitVersion = 'v1.36.2+weft'

/** What `/version` answers (version.Info). */
export const versionInfo = {
  major: '1',
  minor: '36',
  emulationMajor: '1',
  emulationMinor: '36',
  minCompatibilityMajor: '1',
  minCompatibilityMinor: '35',
  gitVersion,
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '2026-11-21T00:00:00Z',
  goVersion: `node-${nodeVersion}`,
  compiler: 'v8',
  platform: `${platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
} as const
